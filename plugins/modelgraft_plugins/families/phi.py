"""Phi: a small decoder trained on textbooks (arXiv 2306.11644)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelgraft.plugin import FamilyCard, LanguageCard
from modelgraft_plugins.families._formulas import head, linear, norm


def _count(f: Mapping[str, Any]) -> int:
    width, inner, heads = f["hidden_size"], f["intermediate_size"], f["num_attention_heads"]
    pairs, size = f.get("num_key_value_heads") or heads, f.get("head_dim") or width // heads
    attention = linear(width, heads * size, bias=True) + 2 * linear(width, pairs * size, bias=True) + linear(heads * size, width, bias=True)
    normed = 2 * norm(width // heads) if f["qk_layernorm"] else 0
    layer = attention + normed + linear(width, inner, bias=True) + linear(inner, width, bias=True) + norm(width)
    return int(f["vocab_size"] * width + f["num_hidden_layers"] * layer + norm(width) + head(f, width, bias=True))


CARD = FamilyCard(
    "phi",
    "a small decoder",
    languages={
        "phi": LanguageCard(
            {
                "vocab_size": 51200, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24, "num_attention_heads": 32,
                "max_position_embeddings": 2048, "tie_word_embeddings": False, "qk_layernorm": False,
            },
            _count,
        ),
    },
)  # fmt: skip
