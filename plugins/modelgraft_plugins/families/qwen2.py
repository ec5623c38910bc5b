"""Qwen2: a LLaMA with biases on queries, keys and values (arXiv 2407.10671)."""

from __future__ import annotations

from modelgraft.plugin import FamilyCard, LanguageCard
from modelgraft_plugins.families._formulas import gated
from modelgraft_plugins.families.llama import DEFAULTS

CARD = FamilyCard(
    "qwen2",
    "a decoder with biases on queries, keys and values",
    languages={
        "qwen2": LanguageCard(
            {
                **DEFAULTS, "vocab_size": 151936, "intermediate_size": 22016, "num_key_value_heads": 32, "max_position_embeddings": 32768,
            },
            gated(biases="qkv"),
        ),
    },
)  # fmt: skip
