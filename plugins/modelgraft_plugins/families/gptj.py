"""GPT-J (EleutherAI 2021)."""

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
    layer = 4 * width * width + linear(width, inner, bias=True) + linear(inner, width, bias=True) + norm(width)
    return int(f["vocab_size"] * width + f["n_layer"] * layer + norm(width) + head(f, width, bias=True))


CARD = FamilyCard(
    "gptj",
    "a decoder",
    languages={
        "gptj": LanguageCard(
            {
                "vocab_size": 50400, "n_positions": 2048, "n_embd": 4096, "n_layer": 28, "n_head": 16, "n_inner": None,
                "tie_word_embeddings": False,
            },
            _count,
            names=_NAMES,
        ),
    },
)  # fmt: skip
