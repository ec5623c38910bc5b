"""Qwen2.5-VL: as Qwen2-VL, with an eye most of whose layers look through windows (arXiv 2502.13923)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelgraft.plugin import FamilyCard, TowerCard, WholeCard
from modelgraft_plugins.families import qwen2_vl
from modelgraft_plugins.families._formulas import linear
from modelgraft_plugins.families._shared import PLAIN


def _count(f: Mapping[str, Any]) -> int:
    width, inner = f["hidden_size"], f["intermediate_size"]
    block = 2 * width + qwen2_vl.attention(width) + 2 * linear(width, inner, bias=True) + linear(inner, width, bias=True)
    return int(f["patch_values"] * width + f["num_hidden_layers"] * block)


_NAMES = {
    "num_hidden_layers": "depth", "num_attention_heads": "num_heads", "num_channels": "in_channels", "merge_size": "spatial_merge_size",
    "full_layers": "fullatt_block_indexes",
}  # fmt: skip
EYE = TowerCard(
    "patches",
    style="qwen2_5_vl",
    architecture="Qwen2_5_VisionTransformerPretrainedModel",
    defaults={
        "hidden_size": 3584, "intermediate_size": 3420, "num_hidden_layers": 32, "num_attention_heads": 16, "num_channels": 3,
        "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2, "hidden_act": "silu", "rope_theta": 10000.0, "window_size": 112,
        "full_layers": (7, 15, 23, 31),
    },
    names=_NAMES,
    settings={
        **{word: word for word in ("hidden_size", "intermediate_size", "patch_size", "temporal_patch_size", "hidden_act", "window_size")},
        **_NAMES,
    },
    fixed={"out_hidden_size": 1},  # of the merger, which is a component of its own
    pooled=False,
    any_size=True,
    count=_count,
    steps=qwen2_vl.Qwen2VLSteps(),
    obeyed=frozenset({"out_hidden_size"}),  # of patches/merger
    idle=frozenset({"in_chans", "spatial_patch_size", "tokens_per_second"}),  # the last is of films
    more={"without": ("merger",)},
)  # fmt: skip
CARD = FamilyCard(
    "qwen2_5_vl",
    "as Qwen2-VL, with an eye that looks through windows",
    wholes={
        "qwen2_5_vl": WholeCard(
            parts=qwen2_vl.parts("qwen2_5_vl"),
            tied=False,
            tied_inside=True,
            language_config=qwen2_vl.language("qwen2_5_vl_text"),
            components={
                "patches/prepare": qwen2_vl.PREPARE,
                "patches/frames": {
                    "defaults": qwen2_vl.FILMS, "marks": qwen2_vl.MARKS,
                    "fields": {"tokens_per_second": ("vision_config.tokens_per_second", 4)},
                },
                "patches/merger": {
                    "family": "rms",
                    "fields": {
                        "in_features": ("vision_config.hidden_size", 3584), "out_features": ("vision_config.out_hidden_size", 3584),
                        "merge_size": ("vision_config.spatial_merge_size", 2),
                    },
                },
            },
        ),
        "qwen2_5_vl_vision": WholeCard(parts={"merger": PLAIN}),
    },
    towers={"qwen2_5_vl_vision": EYE},
    graphs={"qwen2_5_vl": "qwen2_vl"},
)  # fmt: skip
