"""A tiny Flamingo in folders: an NFNet in the layout of timm, a LLaMA, and trained parts whose gates are open."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf
from PIL import Image
from safetensors.torch import save_file

from modelgraft import Video
from modelgraft_plugins.llm.gated import GatedCrossAttention
from modelgraft_plugins.llm.gated_blocks import GatedLayers
from modelgraft_plugins.resampler import Perceiver
from modelgraft_plugins.resampler.modules import Perceiver as PerceiverModule
from support import openflamingo
from support.checkpoints import randomise
from support.oracles import oracle

EYE = oracle("nfnet_timm")
WIDE = EYE.config["channels"][-1]
SIDE = 64
LEARNED = 3  # frames that have a learned vector
RESAMPLER: dict[str, Any] = {
    "num_heads": 3, "head_dim": 8, "depth": 2, "num_latents": 5, "activation": "squared_relu", "max_num_frames": LEARNED,
    "more_frames": "interpolate",
}  # fmt: skip
GATED: dict[str, Any] = {"every": 2, "num_heads": 5, "head_dim": 8, "activation": "squared_relu"}


@dataclass(frozen=True, slots=True)
class Tiny:
    """Where the parts lie."""

    eye: Path
    language: Path
    trained: Path

    def params(self, *, new: int = 4, trained: bool = True, **more: Any) -> dict[str, Any]:
        """Params of the graph flamingo and those that extend it; without `trained` the parts between begin at random, closed."""
        source = f"{self.trained}#lang_encoder" if trained else None
        adapter = {"use": "adapter/gated_cross_attention", "with": GATED, "in": {"media": "resampler"}}
        return {
            "vision": str(self.eye), "language": str(self.language), "tokens": [], "max_new_tokens": new,
            **({"nodes.resampler.from": f"{self.trained}#perceiver"} if trained else {}),
            **{f"nodes.resampler.with.{name}": value for name, value in RESAMPLER.items()},
            "nodes.llm.adapters": [{**adapter, "from": source} if source else adapter],
            **more,
        }  # fmt: skip


def tiny(folder: Path) -> Tiny:
    """Write them below a folder."""
    words = {"architecture": "dm_nfnet_f0", "num_classes": EYE.config["classes"], "pretrained_cfg": {"input_size": [3, SIDE, SIDE]}}
    EYE.as_folder(folder / "eye", words)
    found = Tiny(folder / "eye", openflamingo.parts(folder).language, folder / "trained.safetensors")
    host = openflamingo.REFERENCE.config
    sizes = {"hidden_size": host["hidden_size"], "num_hidden_layers": host["num_hidden_layers"], "media_size": WIDE}
    resampler = PerceiverModule(Perceiver(hidden_size=WIDE, **RESAMPLER)).model
    gated = GatedLayers(GatedCrossAttention(**GATED, **sizes))
    randomise(resampler, seed=3)
    randomise(gated, seed=4)
    blocks = {
        f"lang_encoder.model.layers.{name.split('.')[1]}.gated_cross_attn_layer.{name.split('.', 2)[2]}": tensor
        for name, tensor in gated.state_dict().items()
    }
    save_file({**{f"perceiver.{name}": tensor for name, tensor in resampler.state_dict().items()}, **blocks}, found.trained)
    return found


def film(frames: int, *, seconds: float, seed: int) -> Video:
    """A clip of noise, which changes from frame to frame."""
    pixels = np.random.default_rng(seed).integers(0, 255, (frames, 24, 36, 3), dtype=np.uint8)
    return Video(frames=pixels, rate_hz=frames / seconds)


def frames_of(clip: Video, count: int) -> list[Image.Image]:
    """So many frames of a clip, evenly spread, by a loop."""
    last = len(clip.frames) - 1
    places = [round(last * index / (count - 1)) if count > 1 else 0 for index in range(count)]
    return [Image.fromarray(clip.frames[place]) for place in places]


def said(*parts: Any, role: str = "user") -> dict[str, Any]:
    """A message of texts, pictures and clips."""
    kinds = {str: "text", Video: "video"}
    return {"role": role, "content": [{"type": (kind := kinds.get(type(part), "image")), kind: part} for part in parts]}


def deep_language(folder: Path, *, like: Path) -> None:
    """A LLaMA of fourteen layers with random numbers, and the tokenizer of another folder."""
    torch.manual_seed(5)
    config = hf.LlamaConfig(
        vocab_size=openflamingo.REFERENCE.config["vocab_size"], hidden_size=16, intermediate_size=24, num_hidden_layers=14,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    hf.LlamaForCausalLM(config).save_pretrained(folder)
    hf.PreTrainedTokenizerFast.from_pretrained(like).save_pretrained(folder)
