"""OmniMAE: one vision transformer for pictures and films, trained as a masked autoencoder (arXiv 2206.08356)."""

from __future__ import annotations

from modelgraft.plugin import FamilyCard, PartCard, WholeCard

CARD = FamilyCard(
    "omnimae",
    "one eye for pictures and films, trained to rebuild them from a few of their patches",
    wholes={"omnimae": WholeCard(parts={"head": PartCard(), "trunk": PartCard()})},  # of pixels or of classes; the trunk with its decoder
)
