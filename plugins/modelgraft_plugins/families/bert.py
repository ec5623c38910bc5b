"""BERT: a text read in both directions (arXiv 1810.04805)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelgraft.plugin import FamilyCard, TowerCard
from modelgraft_plugins.families._formulas import text_tower
from modelgraft_plugins.families._shared import TEXT_SETTINGS, text_sizes


def _count(f: Mapping[str, Any]) -> int:
    width = f["hidden_size"]
    return text_tower(f) + int(f["type_vocab_size"] * width + width * width + width)  # and the pooler


CARD = FamilyCard(
    "bert",
    "a text read in both directions",
    towers={
        "bert": TowerCard(
            "text",
            style="bert",
            architecture="BertModel",
            defaults={
                **text_sizes(768, 3072, 12, 30522, 512), "hidden_act": "gelu", "layer_norm_eps": 1e-12, "type_vocab_size": 2,
                "pad_token_id": 0,
            },
            settings={**TEXT_SETTINGS, "type_vocab_size": "type_vocab_size"},
            count=_count,
            idle=frozenset({
                "directionality", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head",
                "pooler_type",
            }),
        ),
    },
)  # fmt: skip
