"""Gemma: a LLaMA with a large vocabulary, tied, whose embeddings are scaled by the root of their width (arXiv 2403.08295)."""

from __future__ import annotations

from modelgraft.plugin import FamilyCard, LanguageCard
from modelgraft_plugins.families._formulas import gated
from modelgraft_plugins.families.llama import DEFAULTS

CARD = FamilyCard(
    "gemma",
    "a decoder with a large tied vocabulary",
    languages={
        "gemma": LanguageCard(
            {
                **DEFAULTS, "vocab_size": 256000, "hidden_size": 3072, "intermediate_size": 24576, "num_hidden_layers": 28,
                "num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 256, "max_position_embeddings": 8192,
                "tie_word_embeddings": True,
            },
            gated(biases="config"),
        ),
    },
)  # fmt: skip
