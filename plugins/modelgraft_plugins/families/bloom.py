"""BLOOM: many languages, positions as slopes (arXiv 2211.05100)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelgraft.plugin import FamilyCard, LanguageCard
from modelgraft_plugins.families._formulas import head, linear, norm


def _count(f: Mapping[str, Any]) -> int:
    width = f["hidden_size"]
    attention = linear(width, 3 * width, bias=True) + linear(width, width, bias=True)
    layer = attention + linear(width, 4 * width, bias=True) + linear(4 * width, width, bias=True) + 2 * norm(width)
    return int(f["vocab_size"] * width + norm(width) + f["n_layer"] * layer + norm(width) + head(f, width))


CARD = FamilyCard(
    "bloom",
    "a decoder of many languages",
    languages={
        "bloom": LanguageCard(
            {"vocab_size": 250880, "hidden_size": 64, "n_layer": 2, "n_head": 8, "tie_word_embeddings": True},
            _count,
            names={"num_hidden_layers": "n_layer", "num_attention_heads": "n_head"},
            former={"n_embed": "hidden_size"},
        ),
    },
)  # fmt: skip
