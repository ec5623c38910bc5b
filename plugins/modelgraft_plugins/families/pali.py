"""PaLI: a vision transformer without a class token, a linear layer, and mT5 (arXiv 2209.06794).

Nobody has published its weights. A folder of it has `vision_config` and `text_config` in its config.json, and the tensors of its
parts under `vision_model.`, `projector.` and `language_model.`.
"""

from __future__ import annotations

from modelgraft.plugin import FamilyCard, PartCard, WholeCard
from modelgraft_plugins.families._shared import PLAIN

CARD = FamilyCard(
    "pali",
    "a picture and a line in many languages, read by mT5, which answers",
    wholes={
        "pali": WholeCard(
            parts={
                "vision_model": PartCard("vision_config", "siglip_vision_model"),
                "projector": PLAIN,
                "language_model": PartCard("text_config", "mt5"),
            },
            pictures="ViT",
        ),
    },
    graphs={"pali": "pali"},
)
