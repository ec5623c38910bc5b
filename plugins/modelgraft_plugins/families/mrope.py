"""Language models that count frames, rows and columns of pictures (M-RoPE, arXiv 2409.12191): those inside Qwen2-VL and its followers.

Sizes where configs are silent: the classes of transformers 5.23, which have the layers of these and no class with a head.
"""

from __future__ import annotations

from modelgraft.plugin import FamilyCard, LanguageCard
from modelgraft_plugins.families._formulas import gated

_QWEN2 = {
    "vocab_size": 152064, "hidden_size": 8192, "intermediate_size": 29568, "num_hidden_layers": 80, "num_attention_heads": 64,
    "num_key_value_heads": 8, "max_position_embeddings": 32768, "tie_word_embeddings": False,
}  # fmt: skip
_QWEN3 = {
    "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 22016, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 32, "head_dim": 128, "max_position_embeddings": 128000, "tie_word_embeddings": False,
}  # fmt: skip
_PUT_ON = {"head": "put on"}

CARD = FamilyCard(
    "mrope",
    "language models that count frames, rows and columns of pictures",
    languages={
        **{kind: LanguageCard(_QWEN2, gated(biases="qkv"), more=_PUT_ON) for kind in ("qwen2_vl_text", "qwen2_5_vl_text")},
        "qwen3_vl_text": LanguageCard(_QWEN3, gated(biases="config", head_norms=True), more={**_PUT_ON, "deep": True}),
    },
)
