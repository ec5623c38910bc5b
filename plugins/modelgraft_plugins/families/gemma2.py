"""Gemma 2: windows in every other layer, four norms to a layer, soft caps (arXiv 2408.00118)."""

from __future__ import annotations

from modelgraft.plugin import FamilyCard, LanguageCard
from modelgraft_plugins.families._formulas import gated
from modelgraft_plugins.families.llama import DEFAULTS

CARD = FamilyCard(
    "gemma2",
    "a decoder with windows and soft caps",
    languages={
        "gemma2": LanguageCard(
            {
                **DEFAULTS, "vocab_size": 256000, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
                "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "max_position_embeddings": 8192,
                "tie_word_embeddings": True,
            },
            gated(biases="config", norms=4),
            even=True,
            last=("final_logit_softcapping", 30.0),
        ),
    },
)  # fmt: skip
