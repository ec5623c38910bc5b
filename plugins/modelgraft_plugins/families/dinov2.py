"""DINOv2: an eye that learned from pictures alone (arXiv 2304.07193), and the same with registers (arXiv 2309.16588)."""

from __future__ import annotations

from modelgraft.plugin import FamilyCard, PictureCard, TowerCard, WholeCard
from modelgraft_plugins.families._shared import CLIP_PICTURES, eye_graph, eye_sizes

_SILENT = {**eye_sizes(768, 3072, 12, 12, 14), "hidden_act": "gelu", "layer_norm_eps": 1e-6}
_GRAPH = eye_graph("dinov2", "See a picture: one vector for each patch and one for the whole, as DINOv2 learned it from pictures alone.")

CARD = FamilyCard(
    "dinov2",
    "an eye that learned from pictures alone",
    wholes={"dinov2": WholeCard(pictures="Bit")},  # files of the other name their own
    towers={
        "dinov2": TowerCard("image", defaults=_SILENT, lead=1, any_size=True),
        "dinov2_with_registers": TowerCard(
            "image", defaults={**_SILENT, "patch_size": 16, "num_register_tokens": 4}, lead="num_register_tokens+1", any_size=True
        ),
    },
    pictures={"Bit": PictureCard(CLIP_PICTURES, is_square=False)},
    graphs={"dinov2": _GRAPH, "dinov2_with_registers": _GRAPH},
)
