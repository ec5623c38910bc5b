"""T5: an encoder-decoder that takes every task as text (arXiv 1910.10683), and mT5, the same in 101 languages (arXiv 2010.11934)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelgraft.plugin import FamilyCard, LanguageCard, TowerCard
from modelgraft_plugins.families._formulas import head


def _stack(f: Mapping[str, Any], layers: int, *, attentions: int) -> int:
    width = f["d_model"]
    forward = (3 if f["feed_forward_proj"].startswith("gated") else 2) * width * f["d_ff"]
    attention = 4 * width * f["num_heads"] * f["d_kv"]
    layer = attentions * attention + forward + (attentions + 1) * width
    return int(layers * layer + f["relative_attention_num_buckets"] * f["num_heads"] + width)


def _count_decoder(f: Mapping[str, Any]) -> int:
    decoder = _stack(f, f.get("num_decoder_layers") or f["num_layers"], attentions=2)
    return int(f["vocab_size"] * f["d_model"] + decoder + head(f, f["d_model"]))


def _count(f: Mapping[str, Any]) -> int:
    return _stack(f, f["num_layers"], attentions=1) + _count_decoder(f)


def _count_encoder(f: Mapping[str, Any]) -> int:
    return int(f["vocab_size"] * f["d_model"]) + _stack(f, f["num_layers"], attentions=1)


_NAMES = {
    "hidden_size": "d_model", "num_hidden_layers": "num_layers", "num_attention_heads": "num_heads", "intermediate_size": "d_ff",
}  # fmt: skip
_SIZES = {
    "vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_decoder_layers": None, "num_heads": 8,
    "relative_attention_num_buckets": 32, "feed_forward_proj": "relu", "tie_word_embeddings": True,
}  # fmt: skip
_MT5 = {**_SIZES, "vocab_size": 250112, "d_ff": 1024, "num_layers": 8, "num_heads": 6, "feed_forward_proj": "gated-gelu"}
_MORE = {"head": "files", "positions": None}  # newer files hold a head of their own, whatever their config says


def _language(sizes: Mapping[str, Any]) -> LanguageCard:
    return LanguageCard(sizes, _count, _count_decoder, names=_NAMES, crosses=True, more=_MORE)


def _reader(sizes: Mapping[str, Any], architecture: str) -> TowerCard:
    """Its encoder alone, which reads a text: the decoder and the head stay where they are."""
    return TowerCard(
        "text", architecture=architecture, defaults={word: sizes[_NAMES.get(word, word)] for word in (*_NAMES, "vocab_size")},
        names=_NAMES, pooled=False, count=_count_encoder, more={"leaves": ("decoder.", "lm_head."), "facts": sizes},
    )  # fmt: skip


CARD = FamilyCard(
    "t5",
    "an encoder-decoder that takes every task as text",
    languages={"t5": _language(_SIZES), "mt5": _language(_MT5)},
    towers={"t5": _reader(_SIZES, "T5EncoderModel"), "mt5": _reader(_MT5, "MT5EncoderModel")},
)
