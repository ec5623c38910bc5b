"""Mistral: a LLaMA with fewer keys than queries (arXiv 2310.06825)."""

from __future__ import annotations

from modelgraft.plugin import FamilyCard, LanguageCard
from modelgraft_plugins.families._formulas import gated
from modelgraft_plugins.families.llama import DEFAULTS

CARD = FamilyCard(
    "mistral",
    "a decoder with grouped queries",
    languages={
        "mistral": LanguageCard(
            {
                **DEFAULTS, "intermediate_size": 14336, "num_key_value_heads": 8, "max_position_embeddings": 131072,
            },
            gated(),
        ),
    },
)  # fmt: skip
