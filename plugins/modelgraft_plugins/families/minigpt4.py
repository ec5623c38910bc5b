"""MiniGPT-4: the eye and the Q-Former of a BLIP-2 before a Vicuna, with one linear layer between them (arXiv 2304.10592).

Its published file holds that layer alone. A config.json beside it may state the width of the language model.
"""

from __future__ import annotations

from modelgraft.plugin import FamilyCard, PartCard, WholeCard

CARD = FamilyCard(
    "minigpt4",
    "the eye and the Q-Former of a BLIP-2 before a Vicuna",
    wholes={"minigpt4": WholeCard(parts={"llama_proj": PartCard()})},
    graphs={"minigpt4": "minigpt4"},
)
