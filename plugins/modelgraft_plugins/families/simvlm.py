"""SimVLM: a convolutional stem and an encoder-decoder with one objective (arXiv 2108.10904). No weights were ever published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelgraft.plugin import FamilyCard, LanguageCard, PartCard, WholeCard
from modelgraft_plugins.families._formulas import forward, norm

# Our words -> the keys of the decoder's class. It is Blenderbot's: norms in front, learned positions, GELU, a tied head.
_KEYS = {
    "d_model": "d_model", "num_heads": "decoder_attention_heads", "ffn_dim": "decoder_ffn_dim", "decoder_layers": "decoder_layers",
    "vocab_size": "vocab_size", "max_text": "max_position_embeddings", "pad_token_id": "pad_token_id",
    "eos_token_id": "eos_token_id", "bos_token_id": "bos_token_id",
}  # fmt: skip


def decoder_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of the decoder as transformers builds it; a config that is one already stays."""
    if config.get("model_type") != "simvlm":
        return dict(config)
    found = {theirs: config[ours] for ours, theirs in _KEYS.items() if ours in config}
    start = config.get("bos_token_id", 2)
    layers, heads, inner = (found.get(key) for key in ("decoder_layers", "decoder_attention_heads", "decoder_ffn_dim"))
    sides = {"encoder_layers": layers, "encoder_attention_heads": heads, "encoder_ffn_dim": inner}  # the encoder is another part
    fixed = {"model_type": "blenderbot", "activation_function": "gelu", "scale_embedding": False, "tie_word_embeddings": True}
    return {**found, **{key: value for key, value in sides.items() if value is not None}, **fixed, "decoder_start_token_id": start}


def _count_decoder(f: Mapping[str, Any]) -> int:
    width = f["d_model"]
    layer = 2 * (4 * width * width + 4 * width) + forward(width, f["decoder_ffn_dim"]) + 3 * norm(width)
    return int((f["vocab_size"] + f["max_position_embeddings"]) * width + f["decoder_layers"] * layer + norm(width))


def _count(f: Mapping[str, Any]) -> int:
    width = f["d_model"]
    layer = 4 * width * width + 4 * width + forward(width, f["encoder_ffn_dim"]) + 2 * norm(width)
    return int(f["max_position_embeddings"] * width + f["encoder_layers"] * layer + norm(width)) + _count_decoder(f)


CARD = FamilyCard(
    "simvlm",
    "a convolutional stem and an encoder-decoder with one objective; no weights were published",
    wholes={
        "simvlm": WholeCard(
            parts={"stem": PartCard(), "encoder": PartCard(), "decoder": PartCard(language="always")},
            language_config=decoder_config,
            obeyed=frozenset({*_KEYS, "image_size", "conv_depths", "conv_width", "conv_norm", "encoder_layers"}),
        )
    },
    languages={
        "blenderbot": LanguageCard(
            {
                "vocab_size": 8008, "max_position_embeddings": 128, "encoder_layers": 2, "encoder_ffn_dim": 10240,
                "encoder_attention_heads": 32, "decoder_layers": 24, "decoder_ffn_dim": 10240, "decoder_attention_heads": 32,
                "d_model": 2560, "tie_word_embeddings": True,
            },
            _count,
            _count_decoder,
            names={
                "hidden_size": "d_model", "num_hidden_layers": "decoder_layers", "num_attention_heads": "decoder_attention_heads",
                "intermediate_size": "decoder_ffn_dim",
            },
            crosses=True,
        ),
    },
)  # fmt: skip
