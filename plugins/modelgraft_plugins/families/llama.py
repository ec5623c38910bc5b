"""LLaMA: rotary places, RMS norms, gated feed-forward, grouped queries (arXiv 2302.13971)."""

from __future__ import annotations

from modelgraft.plugin import FamilyCard, LanguageCard
from modelgraft_plugins.families._formulas import gated

DEFAULTS = {
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
    "max_position_embeddings": 2048, "tie_word_embeddings": False,
}  # fmt: skip

CARD = FamilyCard(
    "llama",
    "a decoder, and the pattern of many others",
    languages={"llama": LanguageCard(DEFAULTS, gated(biases="config"), even=True)},
)
