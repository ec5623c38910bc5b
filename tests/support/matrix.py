"""Eyes, connectors and tongues to put together: tiny checkpoints of eight families each, and how connectors are named."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import transformers as hf
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from support import checkpoints
from support.checkpoints import _save

# Every connector by the settings that put it where a graph has its projector, small enough for the eyes below.
CONNECTORS: Mapping[str, Mapping[str, Any]] = {
    "linear": {"projector": "projector/linear"},
    "mlp": {"projector": "projector/mlp"},
    "average": {"projector": "graph:connectors/average", "nodes.project.with.tokens": 4},
    "c_abstractor": {
        "projector": "projector/c_abstractor",
        **{f"nodes.project.with.{key}": value for key, value in {"tokens": 4, "hidden_size": 12, "depth": 1}.items()},
    },
    "resampler": {
        "projector": "graph:connectors/resampler",
        **{f"nodes.project.with.{key}": value for key, value in {"tokens": 3, "depth": 1, "heads": 2}.items()},
    },
    "qformer": {
        "projector": "graph:connectors/qformer",
        **{f"nodes.project.with.{key}": value for key, value in {"tokens": 5, "width": 12, "layers": 2, "heads": 3}.items()},
    },
}
TOKENS = {"average": 4, "c_abstractor": 4, "resampler": 3, "qformer": 5}  # the others give what they get
EYES = ("clip", "siglip", "vit", "blip2", "dinov2", "aimv2", "llava", "paligemma")
# Tokens of each eye for the pictures that it gets; DINOv2 takes any, so that nobody knows before it runs.
PATCHES = {"clip": 9, "siglip": 16, "vit": 9, "blip2": 9, "dinov2": None, "aimv2": 9, "llava": 9, "paligemma": 16}
TONGUES = ("opt", "llama", "smollm", "qwen2", "gpt2", "gpt_neox", "t5", "bart")
WIDTHS = {"opt": 24, "llama": 28, "smollm": 27, "qwen2": 32, "gpt2": 30, "gpt_neox": 36, "t5": 26, "bart": 20}
CROSSING = ("t5", "bart")  # encoder-decoders


def dinov2(folder: Path) -> None:
    """DINOv2 alone, with a table of places that is larger than its pictures."""
    config = hf.Dinov2Config(hidden_size=18, num_hidden_layers=2, num_attention_heads=3, mlp_ratio=2, image_size=20, patch_size=4)
    _save(folder, hf.Dinov2Model(config), ViTImageProcessorPil(size={"height": 16, "width": 16}), seed=21)


def aimv2(folder: Path) -> None:
    """AIMv2 alone."""
    config = hf.Aimv2VisionConfig(
        hidden_size=14, intermediate_size=23, num_hidden_layers=2, num_attention_heads=2, image_size=12, patch_size=4
    )
    _save(folder, hf.Aimv2VisionModel(config), checkpoints.clip_pictures(12), seed=22)


def gpt2(folder: Path) -> None:
    """GPT-2 alone."""
    tokenizer = checkpoints.qwen2_tokenizer()
    config = hf.GPT2Config(vocab_size=len(tokenizer), n_embd=30, n_layer=2, n_head=3, n_positions=256, eos_token_id=tokenizer.eos_token_id)
    _save(folder, hf.GPT2LMHeadModel(config), tokenizer, seed=23)


def gpt_neox(folder: Path) -> None:
    """GPT-NeoX alone."""
    tokenizer = checkpoints.qwen2_tokenizer()
    sizes = {"hidden_size": 36, "intermediate_size": 41, "num_hidden_layers": 2, "num_attention_heads": 3, "max_position_embeddings": 256}
    config = hf.GPTNeoXConfig(vocab_size=len(tokenizer), bos_token_id=None, eos_token_id=tokenizer.eos_token_id, **sizes)
    _save(folder, hf.GPTNeoXForCausalLM(config), tokenizer, seed=24)


def bart(folder: Path) -> None:
    """BART alone."""
    tokenizer = checkpoints.t5_tokenizer()
    ends = {
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "decoder_start_token_id": tokenizer.eos_token_id,
    }
    sizes = {"d_model": 20, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    wide = {"encoder_ffn_dim": 31, "decoder_ffn_dim": 31, "max_position_embeddings": 256}
    config = hf.BartConfig(vocab_size=len(tokenizer), bos_token_id=None, forced_eos_token_id=None, **sizes, **wide, **ends)
    _save(folder, hf.BartForConditionalGeneration(config), tokenizer, seed=25)


OWN: Mapping[str, Callable[[Path], None]] = {"dinov2": dinov2, "aimv2": aimv2, "gpt2": gpt2, "gpt_neox": gpt_neox, "bart": bart}


def make(name: str, folder: Path) -> Path:
    """A tiny checkpoint of a family, in a folder of its name; made once."""
    if not (folder / name).is_dir():
        OWN.get(name, getattr(checkpoints, name, None))(folder / name)
    return folder / name


def settings(eye: str, connector: str) -> dict[str, Any]:
    """What puts a connector behind an eye: one that has a learned vector for each patch must be told how many, where nobody knows."""
    open_patches = PATCHES[eye] is None and connector == "c_abstractor"
    return {**CONNECTORS[connector], **({"nodes.project.with.patches": 16} if open_patches else {})}


def drawn(count: int, *, seed: int) -> list[tuple[str, str, str]]:
    """So many compositions, each an eye, a connector and a tongue, by a seed; encoder-decoders are among them as often as they come."""
    return random.Random(seed).sample(list(itertools.product(EYES, CONNECTORS, TONGUES)), count)
