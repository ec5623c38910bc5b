"""InstructBLIP: BLIP-2 whose Q-Former reads the instruction beside the picture (arXiv 2305.06500)."""

from __future__ import annotations

from modelgraft.plugin import FamilyCard, TowerCard, WholeCard
from modelgraft_plugins.families.blip2 import EYE, QFORMER, parts

# The Q-Former reads the prompt too, and takes no picture from it; its vocabulary is its own.
_TOKENIZER = {"text/tokenizer": {"without": "<image>", "vocabulary_of": "qformer_config", "vocab_size": QFORMER["vocab_size"]}}

CARD = FamilyCard(
    "instructblip",
    "BLIP-2 whose Q-Former reads the instruction beside the picture",
    wholes={
        "instructblip": WholeCard(parts=parts("instructblip"), pictures="Blip", begin="text", inner=True, components=_TOKENIZER),
        "instructblipvideo": WholeCard(begin="text", inner=True, components=_TOKENIZER),
    },
    towers={
        "instructblip_vision_model": EYE,
        "instructblip_qformer": TowerCard("queries", style="reads", architecture="InstructBlipQFormerModel", defaults=QFORMER),
    },
    graphs={"instructblip": "instructblip"},
)
