"""GPT-2 (Radford et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelgraft.plugin import FamilyCard, LanguageCard
from modelgraft_plugins.families._formulas import head, linear, norm

_NAMES = {
    "hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head", "intermediate_size": "n_inner",
    "max_position_embeddings": "n_positions",
}  # fmt: skip


def _count(f: Mapping[str, Any]) -> int:
    width = f["n_embd"]
    inner = f["n_inner"] or 4 * width
    attention = linear(width, 3 * width, bias=True) + linear(width, width, bias=True)
    layer = attention + linear(width, inner, bias=True) + linear(inner, width, bias=True) + 2 * norm(width)
    return int((f["vocab_size"] + f["n_positions"]) * width + f["n_layer"] * layer + norm(width) + head(f, width))


CARD = FamilyCard(
    "gpt2",
    "a decoder",
    languages={
        "gpt2": LanguageCard(
            {
                "vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_inner": None,
                "tie_word_embeddings": True,
            },
            _count,
            names=_NAMES,
        ),
    },
)  # fmt: skip
