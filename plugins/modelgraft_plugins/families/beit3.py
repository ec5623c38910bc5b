"""BEiT-3: a multiway transformer with a head for each use (arXiv 2208.10442). Its files are its tensors alone."""

from __future__ import annotations

from modelgraft.plugin import FamilyCard, WholeCard
from modelgraft_plugins.families._shared import PLAIN

HEADS = ("vision_head", "language_head", "mlm_head", "mim_head")  # a linear layer each

CARD = FamilyCard(
    "beit3",
    "a transformer with a way for pictures and one for texts",
    wholes={"beit3": WholeCard(parts=dict.fromkeys(HEADS, PLAIN))},
    graphs={"beit3": "beit3", "vqkd": "beit3/tokenize"},
)
