"""ImageBind: six media in one space, bound by pictures (arXiv 2305.05665)."""

from __future__ import annotations

from modelgraft.plugin import FamilyCard, PartCard, WholeCard

# Its towers share no prefix in the published file: each finds its own tensors in the whole.
CARD = FamilyCard(
    "imagebind",
    "six media in one space, bound by pictures",
    wholes={"imagebind": WholeCard(parts={name: PartCard() for name in ("vision", "text", "audio", "depth", "thermal", "imu")})},
    graphs={"imagebind": "imagebind"},
)
