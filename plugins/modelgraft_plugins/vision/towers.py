"""What is known of vision towers without building them: published defaults and the exact number of parameters.

Published configs state only what differs from the defaults of their class, so the defaults are part of the format.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelgraft_plugins.stated import tower_table


@dataclass(frozen=True, slots=True)
class Family:
    """A way to build a vision tower.

    architecture  the class in transformers;  defaults  what its config means where it is silent
    has_class     a class token stands before the patches
    """

    architecture: str
    has_class: bool
    defaults: Mapping[str, Any]


def _sizes(hidden: int, inner: int, layers: int, heads: int, patch: int) -> dict[str, Any]:
    return {
        "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
        "image_size": 224, "patch_size": patch, "num_channels": 3,
    }  # fmt: skip


FAMILIES: Mapping[str, Family] = {
    "clip": Family("CLIPVisionModel", True, {**_sizes(768, 3072, 12, 12, 32), "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}),
    "siglip": Family(
        "SiglipVisionModel", False, {**_sizes(768, 3072, 12, 12, 16), "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}
    ),
    "vit": Family("ViTModel", True, {**_sizes(768, 3072, 12, 12, 16), "hidden_act": "gelu", "layer_norm_eps": 1e-12, "qkv_bias": True}),
    "eva": Family(
        "Blip2VisionModel", True, {**_sizes(1408, 6144, 39, 16, 14), "hidden_act": "gelu", "layer_norm_eps": 1e-6, "qkv_bias": True}
    ),
}
# model_type of a published config -> family
MODEL_TYPES: Mapping[str, str] = {
    "clip_vision_model": "clip",
    "siglip_vision_model": "siglip",
    "vit": "vit",
    "blip_2_vision_model": "eva",
    "instructblip_vision_model": "eva",
    "idefics_vision": "clip",
}
# model_type of a published config that is silent about other values than its family, or has other names for some
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "idefics_vision": {**_sizes(768, 5120, 32, 16, 14), "hidden_act": "gelu", "layer_norm_eps": 1e-5},
}
NAMES: Mapping[str, Mapping[str, str]] = {"idefics_vision": {"hidden_size": "embed_dim"}}
# model_type of a model -> that of its tower, for old configs that leave it out
INSIDE: Mapping[str, str] = {
    "clip": "clip_vision_model",
    "llava": "clip_vision_model",
    "siglip": "siglip_vision_model",
    "blip-2": "blip_2_vision_model",
    "instructblip": "instructblip_vision_model",
    "idefics": "idefics_vision",
}
# model_type of a model that has a tower as a part -> the name of that part, for a message
WHOLE_MODELS: Mapping[str, str] = {
    **dict.fromkeys(("clip", "siglip", "blip-2", "instructblip", "idefics"), "vision_model"),
    "llava": "vision_tower",
}

# what a published config states -> what becomes of it; a test compares it with the config classes of transformers
TABLE = tower_table(
    obeyed={
        "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size", "num_channels",
        "hidden_act", "layer_norm_eps", "qkv_bias", "vision_use_head", "embed_dim",
    },
    idle={"projection_dim", "encoder_stride", "pooler_act", "pooler_output_size"},  # of heads that are other parts, or of no part
)  # fmt: skip


def count(family: str, *, width: int, inner: int, layers: int, image: int, patch: int, channels: int, qkv_bias: bool, head: bool) -> int:
    """Count the parameters of a tower.

    width, inner  of the residual stream and of the feed-forward layers;  image, patch  sides in pixels
    head          SigLIP's attention pooling is there
    """
    attention = 4 * width * width + (4 if qkv_bias else 1) * width
    block = attention + 2 * (2 * width) + _mlp(width, inner)
    patches = channels * patch * patch * width + (0 if family == "clip" else width)  # CLIP's has no bias
    tokens = (image // patch) ** 2 + (1 if FAMILIES[family].has_class else 0)
    embeddings = patches + tokens * width + (width if FAMILIES[family].has_class else 0)
    norms = (2 if family == "clip" else 1) * 2 * width
    pooling = width + (4 * width * width + 4 * width) + 2 * width + _mlp(width, inner) if head else 0
    return embeddings + layers * block + norms + pooling


def _mlp(width: int, inner: int) -> int:
    return 2 * width * inner + inner + width
