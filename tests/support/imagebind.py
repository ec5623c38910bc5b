"""A tiny ImageBind with random weights, under the keys of the published file; and media that are made up where no real ones are at hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from modelgraft.plugin import Depth, Imu, Thermal
from support.tokenizers import clip_bpe

WORDS: Mapping[str, Any] = {
    "model_type": "imagebind", "out_embed_dim": 10, "kernel_size": [2, 7, 7], "video_frames": 2, "image_size": 21, "context_length": 77,
    "vocab_size": 300, "audio_num_mel_bins": 20, "audio_target_len": 204, "audio_kernel_size": 8, "audio_stride": 6, "depth_size": 15,
    "depth_kernel_size": 5, "thermal_size": 10, "thermal_kernel_size": 5, "imu_steps": 48, "imu_kernel_size": 8,
    **{f"{name}_embed_dim": 12 for name in ("vision", "text", "audio", "depth", "thermal", "imu")},
    **{f"{name}_num_blocks": 2 for name in ("vision", "text", "audio", "depth", "thermal", "imu")},
    **{f"{name}_num_heads": 3 for name in ("vision", "text", "audio", "depth", "thermal", "imu")},
}  # fmt: skip
# name -> (stem of the published file, shape of its weights behind the width, places)
STEMS: Mapping[str, tuple[str, tuple[int, ...], int]] = {
    "vision": ("rgbt_stem.proj.1", (3, 2, 7, 7), 10),
    "audio": ("rgbt_stem.proj", (1, 8, 8), 3 * 33 + 1),
    "depth": ("depth_stem.proj", (1, 5, 5), 10),
    "thermal": ("rgbt_stem.proj", (1, 5, 5), 5),
    "imu": ("imu_stem.proj", (48,), 7),
}
SCALES = {"audio": 20.0, "depth": 5.0, "thermal": 10.0, "imu": 5.0, "text": 14.0}


def state(*, seed: int = 0) -> dict[str, torch.Tensor]:
    """Every tensor of the published file, at these sizes."""
    found: dict[str, torch.Tensor] = {"modality_preprocessors.text.mask": torch.full((77, 77), -torch.inf).triu(1)}
    shapes = {"modality_preprocessors.text.pos_embed": (1, 77, 12), "modality_preprocessors.text.token_embedding.weight": (300, 12)}
    for name in ("vision", "text", "audio", "depth", "thermal", "imu"):
        shapes |= _shapes(name, has_bias=name not in ("vision", "text"))
        if name in SCALES:
            found[f"modality_postprocessors.{name}.1.log_logit_scale"] = torch.tensor(SCALES[name]).log()
    generator = torch.Generator().manual_seed(seed)
    return found | {key: 0.3 + 0.5 * torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def _shapes(name: str, *, has_bias: bool) -> dict[str, tuple[int, ...]]:
    entry, trunk, head = f"modality_preprocessors.{name}.", f"modality_trunks.{name}.", f"modality_heads.{name}."
    found: dict[str, tuple[int, ...]] = {}
    if name in STEMS:
        stem, behind, places = STEMS[name]
        holder = "" if name == "imu" else "pos_embedding_helper."
        found |= {f"{entry}cls_token": (1, 1, 12), f"{entry}{stem}.weight": (12, *behind), f"{entry}{holder}pos_embed": (1, places, 12)}
    if has_bias:
        norm = f"{entry}{STEMS[name][0].partition('.')[0]}.norm_layer."
        found |= {f"{norm}weight": (12,), f"{norm}bias": (12,)}
    if name == "vision":
        found |= {f"{trunk}pre_transformer_layer.0.{part}": (12,) for part in ("weight", "bias")}
    for index in range(2):
        block = f"{trunk}blocks.{index}."
        found |= {f"{block}attn.in_proj_weight": (36, 12), f"{block}attn.in_proj_bias": (36,), f"{block}attn.out_proj.weight": (12, 12)}
        found |= {
            f"{block}{part}": (12,) for part in ("attn.out_proj.bias", "norm_1.weight", "norm_1.bias", "norm_2.weight", "norm_2.bias")
        }
        found |= {
            f"{block}mlp.fc1.weight": (48, 12),
            f"{block}mlp.fc1.bias": (48,),
            f"{block}mlp.fc2.weight": (12, 48),
            f"{block}mlp.fc2.bias": (12,),
        }
        found |= {f"{block}attn.{part}": (1, 1, 12) for part in ("bias_k", "bias_v") if has_bias}
    norm, last = {"text": ("proj.0", "proj.1"), "imu": ("0", "3")}.get(name, ("0", "2"))
    return found | {f"{head}{norm}.weight": (12,), f"{head}{norm}.bias": (12,), f"{head}{last}.weight": (10, 12)}


def checkpoint(folder: Path, **words: Any) -> Path:
    """A folder with these weights, a config.json in the words of the published code, and the files of a small CLIP tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**WORDS, **words}))
    save_file(state(), folder / "model.safetensors")
    return folder


def tokenizer(folder: Path) -> Path:
    """The files of a small CLIP tokenizer, whose end has the highest id."""
    clip_bpe().save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "clip", "text_config": {"model_type": "clip_text_model"}}))
    return folder


def made_up_depth(seed: int = 0) -> Depth:
    """A floor that goes away from the camera, with a box on it and a hole where nothing was measured: 1 to 6 metres."""
    metres = np.linspace(6.0, 1.0, 48, dtype=np.float32)[:, None].repeat(64, 1)
    metres[20:30, 25:40] = 1.5
    metres[3:6, 50:60] = np.nan
    noise = np.random.default_rng(seed).normal(0, 0.01, metres.shape).astype(np.float32)
    return Depth(metres + noise, 525.0)


def made_up_heat(seed: int = 0) -> Thermal:
    """A room at 21 degrees with somebody at 34 in it."""
    rows, columns = np.mgrid[:60, :80]
    body = np.exp(-(((columns - 45) / 9.0) ** 2 + ((rows - 32) / 20.0) ** 2))
    noise = np.random.default_rng(seed).normal(0, 0.1, body.shape)
    return Thermal((21 + 13 * body + noise).astype(np.float32))


def made_up_walk(*, rate_hz: float = 200.0, seconds: float = 5.0, seed: int = 0) -> Imu:
    """Steps twice a second: gravity along z, swaying, a little turning. Channels with names, in another order than the towers want."""
    time = np.arange(round(rate_hz * seconds)) / rate_hz
    step = np.sin(2 * np.pi * 2 * time)
    rows = [0.2 * step, 0.1 * np.cos(2 * np.pi * time), 0.05 * step, 0.4 * step, 0.3 * np.cos(2 * np.pi * 2 * time), 9.81 + 2 * step**2]
    noise = np.random.default_rng(seed).normal(0, 0.01, (6, len(time)))
    names = ("gyro_x", "gyro_y", "gyro_z", "accel_x", "accel_y", "accel_z")
    return Imu((np.stack(rows) + noise).astype(np.float32), rate_hz, names)
