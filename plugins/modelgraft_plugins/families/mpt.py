"""MPT: no positions but slopes (ALiBi), no biases (MosaicML 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelgraft.plugin import FamilyCard, LanguageCard
from modelgraft_plugins.families._formulas import head


def _count(f: Mapping[str, Any]) -> int:
    width = f["d_model"]
    layer = 4 * width * width + 2 * 4 * width * width + 2 * width  # attention, feed-forward of 4 times the width, norms; no biases
    return int(f["vocab_size"] * width + f["n_layers"] * layer + width + head(f, width))


CARD = FamilyCard(
    "mpt",
    "a decoder without positions",
    languages={
        "mpt": LanguageCard(
            {"vocab_size": 50368, "d_model": 2048, "n_layers": 24, "n_heads": 16, "max_seq_len": 2048, "tie_word_embeddings": True},
            _count,
            names={
                "hidden_size": "d_model", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads",
                "max_position_embeddings": "max_seq_len",
            },
        ),
    },
)  # fmt: skip
