"""OPT: an open GPT-3 (arXiv 2205.01068)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelgraft.plugin import FamilyCard, LanguageCard
from modelgraft_plugins.families._formulas import head, linear, norm


def _count(f: Mapping[str, Any]) -> int:
    width, inner, bias = f["hidden_size"], f["ffn_dim"], f["enable_bias"]
    outside = f.get("word_embed_proj_dim") or width
    normed = norm(width) if f["layer_norm_elementwise_affine"] else 0
    layer = 4 * linear(width, width, bias=bias) + linear(width, inner, bias=bias) + linear(inner, width, bias=bias) + 2 * normed
    last = normed if f["do_layer_norm_before"] and not f["_remove_final_layer_norm"] else 0
    projections = 2 * width * outside if outside != width else 0
    positions = (f["max_position_embeddings"] + 2) * width  # the first two stand for padding
    return int(f["vocab_size"] * outside + positions + projections + last + f["num_hidden_layers"] * layer + head(f, outside))


CARD = FamilyCard(
    "opt",
    "an open GPT-3",
    languages={
        "opt": LanguageCard(
            {
                "vocab_size": 50272, "hidden_size": 768, "ffn_dim": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
                "max_position_embeddings": 2048, "tie_word_embeddings": True, "enable_bias": True, "layer_norm_elementwise_affine": True,
                "do_layer_norm_before": True, "_remove_final_layer_norm": False,
            },
            _count,
            names={"intermediate_size": "ffn_dim"},
        ),
    },
)  # fmt: skip
