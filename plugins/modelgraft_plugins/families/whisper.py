"""Whisper: speech to text, in the language that is spoken or in English (arXiv 2212.04356)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelgraft.plugin import FamilyCard, LanguageCard, TowerCard, WholeCard
from modelgraft_plugins.families._formulas import forward, norm
from modelgraft_plugins.families._shared import PLAIN


def _count_ear(f: Mapping[str, Any]) -> int:
    """Two convolutions, positions, layers (keys have no bias), and the last norm."""
    width, inner = f["hidden_size"], f["intermediate_size"]
    stem = (f["mels"] + width) * width * 3 + 2 * width + f["positions"] * width
    layer = 4 * width**2 + 3 * width + forward(width, inner) + 2 * norm(width)
    return int(stem + f["num_hidden_layers"] * layer + norm(width))


def _count_decoder(f: Mapping[str, Any]) -> int:
    width, inner = f["d_model"], f["decoder_ffn_dim"]
    attention = 4 * width * width + 3 * width  # keys have no bias
    layer = 2 * attention + forward(width, inner) + 3 * norm(width)
    return int((f["vocab_size"] + f["max_target_positions"]) * width + f["decoder_layers"] * layer + norm(width))


_KEYS: Mapping[str, str] = {  # our word -> the key of a config
    "hidden_size": "d_model", "intermediate_size": "encoder_ffn_dim", "num_hidden_layers": "encoder_layers",
    "num_attention_heads": "encoder_attention_heads", "mels": "num_mel_bins", "positions": "max_source_positions",
    "hidden_act": "activation_function",
}  # fmt: skip
EAR = TowerCard(
    "audio",
    style="whisper",
    architecture="WhisperModel",
    names=_KEYS,
    settings=_KEYS,
    fixed={"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0, "encoder_layerdrop": 0.0},
    pooled=False,
    count=_count_ear,
    idle=frozenset({
        "vocab_size", "decoder_attention_heads", "decoder_ffn_dim", "decoder_layers", "max_target_positions", "num_hidden_layers",
        "forced_decoder_ids", "apply_spec_augment", "mask_feature_length", "mask_feature_min_masks", "mask_feature_prob",
        "mask_time_length", "mask_time_min_masks", "mask_time_prob", "median_filter_width", "classifier_proj_size",
        "use_weighted_layer_sum", "scale_embedding",  # of embeddings: the encoder has none
    }),
    more={"features": "WhisperFeatureExtractor", "encoder": "transformers.models.whisper.modeling_whisper:WhisperEncoder"},
)  # fmt: skip
DECODER = LanguageCard(
    {
        "vocab_size": 51865, "d_model": 384, "decoder_layers": 4, "decoder_attention_heads": 6, "decoder_ffn_dim": 1536,
        "max_target_positions": 448, "tie_word_embeddings": True,
    },
    decoder_count=_count_decoder,
    names={
        "hidden_size": "d_model", "num_hidden_layers": "decoder_layers", "num_attention_heads": "decoder_attention_heads",
        "intermediate_size": "decoder_ffn_dim", "max_position_embeddings": "max_target_positions",
    },
    crosses=True,
    more={"architecture": "AutoModelForSpeechSeq2Seq"},
)  # fmt: skip
CARD = FamilyCard(
    "whisper",
    "speech to text",
    wholes={"whisper": WholeCard(parts={"encoder": PLAIN, "decoder": PLAIN})},
    towers={"whisper": EAR},
    languages={"whisper": DECODER},
)
