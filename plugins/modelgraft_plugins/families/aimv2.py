"""AIMv2: an eye that learned by writing pictures and their captions (arXiv 2411.14402)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelgraft.plugin import FamilyCard, PartCard, TowerCard, WholeCard
from modelgraft_plugins.families._shared import eye_graph, eye_sizes

_DOC = "See a picture: one vector for each patch, and one for the whole where the checkpoint has a head for it, as AIMv2 does."


def _graph(config: Mapping[str, Any]) -> str:
    part = "#vision_model" if "vision_config" in config else ""
    return eye_graph("aimv2", _DOC, part=part, pooled=(config.get("vision_config") or config).get("use_head", True))


CARD = FamilyCard(
    "aimv2",
    "an eye that learned by writing pictures and their captions",
    wholes={
        "aimv2": WholeCard(parts={"vision_model": PartCard("vision_config", "aimv2_vision_model")}, pictures="CLIP"),
        "aimv2_vision_model": WholeCard(pictures="CLIP"),
    },
    towers={
        "aimv2_vision_model": TowerCard(
            "image", defaults={**eye_sizes(1024, 2816, 24, 8, 14), "hidden_act": "silu"}, pooled="use_head", any_size="is_native"
        ),
    },
    graphs={"aimv2": _graph, "aimv2_vision_model": _graph},
)
