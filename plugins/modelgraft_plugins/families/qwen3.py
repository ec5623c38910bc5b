"""Qwen3: a LLaMA whose queries and keys are normed per head (arXiv 2505.09388)."""

from __future__ import annotations

from modelgraft.plugin import FamilyCard, LanguageCard
from modelgraft_plugins.families._formulas import gated
from modelgraft_plugins.families.llama import DEFAULTS

CARD = FamilyCard(
    "qwen3",
    "a decoder whose queries and keys are normed",
    languages={
        "qwen3": LanguageCard(
            {
                **DEFAULTS, "vocab_size": 151936, "intermediate_size": 22016, "num_key_value_heads": 32, "head_dim": 128,
                "max_position_embeddings": 32768,
            },
            gated(biases="config", head_norms=True),
        ),
    },
)  # fmt: skip
