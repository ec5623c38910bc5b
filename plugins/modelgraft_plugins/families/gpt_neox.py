"""GPT-NeoX and Pythia: attention and feed-forward side by side (arXiv 2204.06745)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelgraft.plugin import FamilyCard, LanguageCard
from modelgraft_plugins.families._formulas import head, linear, norm


def _count(f: Mapping[str, Any]) -> int:
    width, inner, bias = f["hidden_size"], f["intermediate_size"], f["attention_bias"]
    attention = linear(width, 3 * width, bias=bias) + linear(width, width, bias=bias)
    layer = attention + linear(width, inner, bias=True) + linear(inner, width, bias=True) + 2 * norm(width)
    return int(f["vocab_size"] * width + f["num_hidden_layers"] * layer + norm(width) + head(f, width))


CARD = FamilyCard(
    "gpt_neox",
    "a decoder whose layers run side by side",
    languages={
        "gpt_neox": LanguageCard(
            {
                "vocab_size": 50432, "hidden_size": 6144, "intermediate_size": 24576, "num_hidden_layers": 44, "num_attention_heads": 64,
                "max_position_embeddings": 2048, "tie_word_embeddings": False, "attention_bias": True,
            },
            _count,
        ),
    },
)  # fmt: skip
