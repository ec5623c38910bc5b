"""Qwen3-VL: as Qwen2-VL, with places that are learned, and an eye whose inner layers are heard too (DeepStack; arXiv 2511.21631).

Vectors of some of its inner layers, joined as those of its last, are added to what the first layers of the decoder make of the picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelgraft.plugin import FamilyCard, TowerCard, WholeCard
from modelgraft_plugins.families import qwen2_vl
from modelgraft_plugins.families._formulas import linear, norm
from modelgraft_plugins.families._shared import PLAIN

SECTIONS = [24, 20, 20]  # of a config that says no mrope_section: Qwen3VLTextRotaryEmbedding of transformers 5.23


def language(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of the language model, which says that it counts frames, rows and columns where its file does not."""
    turns = {
        "rope_type": "default",
        "mrope_section": SECTIONS,
        **(config.get("rope_scaling") or {}),
        **(config.get("rope_parameters") or {}),
    }
    if config.get("rope_theta") is not None:
        turns.setdefault("rope_theta", config["rope_theta"])
    kept = {key: value for key, value in config.items() if key not in ("rope_scaling", "rope_theta")}
    return {**kept, "rope_parameters": turns, "model_type": "qwen3_vl_text"}


def _count(f: Mapping[str, Any]) -> int:
    width, inner = f["hidden_size"], f["intermediate_size"]
    block = 2 * norm(width) + qwen2_vl.attention(width) + linear(width, inner, bias=True) + linear(inner, width, bias=True)
    return int(linear(f["patch_values"], width, bias=True) + f["num_position_embeddings"] * width + f["num_hidden_layers"] * block)


_NAMES = {
    "num_hidden_layers": "depth", "num_attention_heads": "num_heads", "num_channels": "in_channels", "merge_size": "spatial_merge_size",
}  # fmt: skip
_DEEP = {"deep_layers": "deepstack_visual_indexes"}
EYE = TowerCard(
    "patches",
    style="qwen3_vl",
    architecture="Qwen3VLVisionModel",
    defaults={
        "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16, "num_channels": 3,
        "patch_size": 16, "temporal_patch_size": 2, "merge_size": 2, "hidden_act": "gelu_pytorch_tanh", "rope_theta": 10000.0,
        "num_position_embeddings": 2304, "deep_layers": (8, 16, 24),
    },
    names={**_NAMES, **_DEEP},
    settings={
        **{
            word: word
            for word in (
                "hidden_size", "intermediate_size", "patch_size", "temporal_patch_size", "hidden_act", "num_position_embeddings",
            )
        },
        **_NAMES,
    },
    fixed={"out_hidden_size": 1, "deepstack_visual_indexes": ()},  # of the mergers, which are components of their own
    pooled=False,
    any_size=True,
    count=_count,
    steps=qwen2_vl.Qwen2VLSteps(),
    obeyed=frozenset({"out_hidden_size"}),  # of patches/merger
    more={"without": ("merger", "deepstack_merger_list")},
)  # fmt: skip
_OUT = ("vision_config.out_hidden_size", 3584)
_JOINED = {
    "in_features": ("vision_config.hidden_size", 1152), "out_features": _OUT, "merge_size": ("vision_config.spatial_merge_size", 2),
}  # fmt: skip
_LAYERS = ("vision_config.deepstack_visual_indexes", (8, 16, 24))
CARD = FamilyCard(
    "qwen3_vl",
    "as Qwen2-VL, with inner layers of the eye that first layers of the decoder hear",
    wholes={
        "qwen3_vl": WholeCard(
            parts=qwen2_vl.parts("qwen3_vl"),
            tied=False,
            language_config=language,
            components={
                "patches/prepare": qwen2_vl.PREPARE,
                "patches/merger": {"family": "layer", "fields": _JOINED},
                "patches/deep-merger": {"fields": {**_JOINED, "layers": _LAYERS}},
                "llm/causal": {"deep": _LAYERS},
            },
        ),
        "qwen3_vl_vision": WholeCard(parts={"merger": PLAIN, "deepstack_merger_list": PLAIN}),
    },
    towers={"qwen3_vl_vision": EYE},
    graphs={"qwen3_vl": "qwen3_vl"},
)  # fmt: skip
