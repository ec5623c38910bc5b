"""Falcon: one key for all queries (arXiv 2311.16867)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelgraft.plugin import FamilyCard, LanguageCard
from modelgraft_plugins.families._formulas import head, linear, norm


def _count(f: Mapping[str, Any]) -> int:
    width, heads, bias = f["hidden_size"], f["num_attention_heads"], f["bias"]
    size, inner, is_new = width // heads, f.get("ffn_hidden_size") or 4 * width, f["new_decoder_architecture"]
    pairs = (f.get("num_kv_heads") or heads) if is_new else 1 if f["multi_query"] else heads
    attention = linear(width, (heads + 2 * pairs) * size, bias=bias) + linear(width, width, bias=bias)
    norms = 2 if not f["parallel_attn"] or (f.get("num_ln_in_parallel_attn") or (2 if is_new else 1)) == 2 else 1
    layer = attention + linear(width, inner, bias=bias) + linear(inner, width, bias=bias) + norms * norm(width)
    return int(f["vocab_size"] * width + f["num_hidden_layers"] * layer + norm(width) + head(f, width))


CARD = FamilyCard(
    "falcon",
    "a decoder with one key for all queries",
    languages={
        "falcon": LanguageCard(
            {
                "vocab_size": 65024, "hidden_size": 4544, "num_hidden_layers": 32, "num_attention_heads": 71,
                "max_position_embeddings": 2048, "tie_word_embeddings": True, "bias": False, "multi_query": True,
                "parallel_attn": True, "new_decoder_architecture": False,
            },
            _count,
            names={"num_key_value_heads": "num_kv_heads", "intermediate_size": "ffn_hidden_size"},
            former={"n_embed": "hidden_size"},
        ),
    },
)  # fmt: skip
