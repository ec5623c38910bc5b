"""Families of language models: what their configs call things, the defaults they leave out, and how many parameters they have.

Published configs name only what differs from the defaults of the family, so that these belong to reading one. A family that
is not listed can still be loaded: its numbers are taken where they have the common names, and its parameters are not counted
by formula.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Facts = Mapping[str, Any]  # a config as in config.json, with the defaults of its family filled in
WIDTHS = ("hidden_size", "d_model", "n_embd", "embed_dim", "emb_dim")  # what families that are not listed call it, as BART does d_model


@dataclass(frozen=True, slots=True)
class Family:
    """One `model_type`.

    defaults    what its configs leave out
    count       the parameters, every shared tensor once; None: no formula
    names       our word -> the key of the config, where they differ
    former      a key of older configs -> that of later ones
    crosses     it is an encoder-decoder
    """

    defaults: Facts = field(default_factory=dict)
    count: Callable[[Facts], int] | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    former: Mapping[str, str] = field(default_factory=dict)
    crosses: bool = False

    def facts(self, config: Facts) -> dict[str, Any]:
        """A config with the defaults filled in; an explicit null counts as left out where there is a default."""
        given = {self.former.get(key, key): value for key, value in config.items()}
        return {**self.defaults, **{key: value for key, value in given.items() if value is not None or key not in self.defaults}}

    def read(self, config: Facts, word: str) -> Any:
        """The value of one of our words, or None. A family without defaults may have another common name for its width."""
        facts, name = self.facts(config), self.names.get(word, word)
        if word == "hidden_size" and not self.defaults:
            name = next((other for other in WIDTHS if facts.get(other) is not None), name)
        return facts.get(name)


def family_of(model_type: str) -> Family:
    """The family of a model type; one without defaults or formula when it is not listed."""
    return FAMILIES.get(model_type, Family(crosses=model_type in CROSSING))


def _norm(width: int) -> int:
    return 2 * width  # weight and bias


def _linear(inputs: int, outputs: int, *, bias: bool) -> int:
    return inputs * outputs + (outputs if bias else 0)


def _head(f: Facts, width: int, *, bias: bool = False) -> int:
    """The output head: nothing of its own when it is tied to the embeddings, but for a bias."""
    return (0 if f["tie_word_embeddings"] else width * f["vocab_size"]) + (f["vocab_size"] if bias else 0)


def _count_opt(f: Facts) -> int:
    width, inner, bias = f["hidden_size"], f["ffn_dim"], f["enable_bias"]
    outside = f.get("word_embed_proj_dim") or width
    norm = _norm(width) if f["layer_norm_elementwise_affine"] else 0
    layer = 4 * _linear(width, width, bias=bias) + _linear(width, inner, bias=bias) + _linear(inner, width, bias=bias) + 2 * norm
    last = norm if f["do_layer_norm_before"] and not f["_remove_final_layer_norm"] else 0
    projections = 2 * width * outside if outside != width else 0
    positions = (f["max_position_embeddings"] + 2) * width  # the first two stand for padding
    return int(f["vocab_size"] * outside + positions + projections + last + f["num_hidden_layers"] * layer + _head(f, outside))


def _gated(*, biases: str = "", norms: int = 2, head_norms: bool = False) -> Callable[[Facts], int]:
    """The formula of LLaMA and its relatives: RMS norms, grouped queries, gated feed-forward.

    biases      "qkv": always on queries, keys, values; "config": as `attention_bias` and `mlp_bias` say; "": none
    head_norms  queries and keys are normed per head
    """

    def count(f: Facts) -> int:
        width, inner, heads = f["hidden_size"], f["intermediate_size"], f["num_attention_heads"]
        pairs, size = f.get("num_key_value_heads") or heads, f.get("head_dim") or width // heads
        asked = biases == "config" and bool(f.get("attention_bias"))
        into = _linear(width, heads * size, bias=asked or biases == "qkv") + 2 * _linear(width, pairs * size, bias=asked or biases == "qkv")
        out = _linear(heads * size, width, bias=asked)
        wide = biases == "config" and bool(f.get("mlp_bias"))
        forward = 2 * _linear(width, inner, bias=wide) + _linear(inner, width, bias=wide)
        layer = into + out + forward + norms * width + (2 * size if head_norms else 0)
        return int(f["vocab_size"] * width + f["num_hidden_layers"] * layer + width + _head(f, width))

    return count


def _count_gpt2(f: Facts) -> int:
    width = f["n_embd"]
    inner = f["n_inner"] or 4 * width
    attention = _linear(width, 3 * width, bias=True) + _linear(width, width, bias=True)
    layer = attention + _linear(width, inner, bias=True) + _linear(inner, width, bias=True) + 2 * _norm(width)
    return int((f["vocab_size"] + f["n_positions"]) * width + f["n_layer"] * layer + _norm(width) + _head(f, width))


def _count_gpt_neox(f: Facts) -> int:
    width, inner, bias = f["hidden_size"], f["intermediate_size"], f["attention_bias"]
    attention = _linear(width, 3 * width, bias=bias) + _linear(width, width, bias=bias)
    layer = attention + _linear(width, inner, bias=True) + _linear(inner, width, bias=True) + 2 * _norm(width)
    return int(f["vocab_size"] * width + f["num_hidden_layers"] * layer + _norm(width) + _head(f, width))


def _count_phi(f: Facts) -> int:
    width, inner, heads = f["hidden_size"], f["intermediate_size"], f["num_attention_heads"]
    pairs, size = f.get("num_key_value_heads") or heads, f.get("head_dim") or width // heads
    attention = (
        _linear(width, heads * size, bias=True) + 2 * _linear(width, pairs * size, bias=True) + _linear(heads * size, width, bias=True)
    )
    normed = 2 * _norm(width // heads) if f["qk_layernorm"] else 0
    layer = attention + normed + _linear(width, inner, bias=True) + _linear(inner, width, bias=True) + _norm(width)
    return int(f["vocab_size"] * width + f["num_hidden_layers"] * layer + _norm(width) + _head(f, width, bias=True))


def _count_mpt(f: Facts) -> int:
    width = f["d_model"]
    layer = 4 * width * width + 2 * 4 * width * width + 2 * width  # attention, feed-forward of 4 times the width, norms; no biases
    return int(f["vocab_size"] * width + f["n_layers"] * layer + width + _head(f, width))


def _count_bloom(f: Facts) -> int:
    width = f["hidden_size"]
    attention = _linear(width, 3 * width, bias=True) + _linear(width, width, bias=True)
    layer = attention + _linear(width, 4 * width, bias=True) + _linear(4 * width, width, bias=True) + 2 * _norm(width)
    return int(f["vocab_size"] * width + _norm(width) + f["n_layer"] * layer + _norm(width) + _head(f, width))


def _count_falcon(f: Facts) -> int:
    width, heads, bias = f["hidden_size"], f["num_attention_heads"], f["bias"]
    size, inner, is_new = width // heads, f.get("ffn_hidden_size") or 4 * width, f["new_decoder_architecture"]
    pairs = (f.get("num_kv_heads") or heads) if is_new else 1 if f["multi_query"] else heads
    attention = _linear(width, (heads + 2 * pairs) * size, bias=bias) + _linear(width, width, bias=bias)
    norms = 2 if not f["parallel_attn"] or (f.get("num_ln_in_parallel_attn") or (2 if is_new else 1)) == 2 else 1
    layer = attention + _linear(width, inner, bias=bias) + _linear(inner, width, bias=bias) + norms * _norm(width)
    return int(f["vocab_size"] * width + f["num_hidden_layers"] * layer + _norm(width) + _head(f, width))


def _count_gptj(f: Facts) -> int:
    width = f["n_embd"]
    inner = f["n_inner"] or 4 * width
    layer = 4 * width * width + _linear(width, inner, bias=True) + _linear(inner, width, bias=True) + _norm(width)
    return int(f["vocab_size"] * width + f["n_layer"] * layer + _norm(width) + _head(f, width, bias=True))


def t5_decoder(f: Facts) -> int:
    """The decoder stack of a T5, without embeddings and head."""
    return _t5_stack(f, f.get("num_decoder_layers") or f["num_layers"], attentions=2)


def _t5_stack(f: Facts, layers: int, *, attentions: int) -> int:
    width = f["d_model"]
    forward = (3 if f["feed_forward_proj"].startswith("gated") else 2) * width * f["d_ff"]
    attention = 4 * width * f["num_heads"] * f["d_kv"]
    layer = attentions * attention + forward + (attentions + 1) * width
    return int(layers * layer + f["relative_attention_num_buckets"] * f["num_heads"] + width)


def _count_t5(f: Facts) -> int:
    return int(f["vocab_size"] * f["d_model"] + _t5_stack(f, f["num_layers"], attentions=1) + t5_decoder(f) + _head(f, f["d_model"]))


def _count_t5_decoder(f: Facts) -> int:
    return int(f["vocab_size"] * f["d_model"] + t5_decoder(f) + _head(f, f["d_model"]))


def _count_whisper_decoder(f: Facts) -> int:
    width, inner = f["d_model"], f["decoder_ffn_dim"]
    attention = 4 * width * width + 3 * width  # keys have no bias
    layer = 2 * attention + _linear(width, inner, bias=True) + _linear(inner, width, bias=True) + 3 * _norm(width)
    return int((f["vocab_size"] + f["max_target_positions"]) * width + f["decoder_layers"] * layer + _norm(width))


DECODER_COUNTS: Mapping[str, Callable[[Facts], int]] = {"t5": _count_t5_decoder, "whisper": _count_whisper_decoder}

_GPT2_NAMES: dict[str, str] = {
    "hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head", "intermediate_size": "n_inner",
    "max_position_embeddings": "n_positions",
}  # fmt: skip
_LLAMA = {
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
    "max_position_embeddings": 2048, "tie_word_embeddings": False,
}  # fmt: skip

# Source of the defaults: the config classes of transformers 5.23; a test compares them.
FAMILIES: Mapping[str, Family] = {
    "opt": Family(
        {
            "vocab_size": 50272, "hidden_size": 768, "ffn_dim": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
            "max_position_embeddings": 2048, "tie_word_embeddings": True, "enable_bias": True, "layer_norm_elementwise_affine": True,
            "do_layer_norm_before": True, "_remove_final_layer_norm": False,
        },
        _count_opt,
        {"intermediate_size": "ffn_dim"},
    ),
    "llama": Family(_LLAMA, _gated(biases="config")),
    "mistral": Family(
        {**_LLAMA, "intermediate_size": 14336, "num_key_value_heads": 8, "max_position_embeddings": 131072},
        _gated(),
    ),
    "qwen2": Family(
        {**_LLAMA, "vocab_size": 151936, "intermediate_size": 22016, "num_key_value_heads": 32, "max_position_embeddings": 32768},
        _gated(biases="qkv"),
    ),
    "qwen3": Family(
        {
            **_LLAMA, "vocab_size": 151936, "intermediate_size": 22016, "num_key_value_heads": 32, "head_dim": 128,
            "max_position_embeddings": 32768,
        },
        _gated(biases="config", head_norms=True),
    ),
    "gemma": Family(
        {
            **_LLAMA, "vocab_size": 256000, "hidden_size": 3072, "intermediate_size": 24576, "num_hidden_layers": 28,
            "num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 256, "max_position_embeddings": 8192,
            "tie_word_embeddings": True,
        },
        _gated(biases="config"),
    ),
    "gemma2": Family(
        {
            **_LLAMA, "vocab_size": 256000, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
            "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "max_position_embeddings": 8192,
            "tie_word_embeddings": True,
        },
        _gated(biases="config", norms=4),
    ),
    "gpt2": Family(
        {
            "vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_inner": None,
            "tie_word_embeddings": True,
        },
        _count_gpt2,
        _GPT2_NAMES,
    ),
    "gpt_neox": Family(
        {
            "vocab_size": 50432, "hidden_size": 6144, "intermediate_size": 24576, "num_hidden_layers": 44, "num_attention_heads": 64,
            "max_position_embeddings": 2048, "tie_word_embeddings": False, "attention_bias": True,
        },
        _count_gpt_neox,
    ),
    "phi": Family(
        {
            "vocab_size": 51200, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24, "num_attention_heads": 32,
            "max_position_embeddings": 2048, "tie_word_embeddings": False, "qk_layernorm": False,
        },
        _count_phi,
    ),
    "mpt": Family(
        {"vocab_size": 50368, "d_model": 2048, "n_layers": 24, "n_heads": 16, "max_seq_len": 2048, "tie_word_embeddings": True},
        _count_mpt,
        {
            "hidden_size": "d_model", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads",
            "max_position_embeddings": "max_seq_len",
        },
    ),
    "bloom": Family(
        {"vocab_size": 250880, "hidden_size": 64, "n_layer": 2, "n_head": 8, "tie_word_embeddings": True},
        _count_bloom,
        {"num_hidden_layers": "n_layer", "num_attention_heads": "n_head"},
        {"n_embed": "hidden_size"},
    ),
    "falcon": Family(
        {
            "vocab_size": 65024, "hidden_size": 4544, "num_hidden_layers": 32, "num_attention_heads": 71, "max_position_embeddings": 2048,
            "tie_word_embeddings": True, "bias": False, "multi_query": True, "parallel_attn": True, "new_decoder_architecture": False,
        },
        _count_falcon,
        {"num_key_value_heads": "num_kv_heads", "intermediate_size": "ffn_hidden_size"},
        {"n_embed": "hidden_size"},
    ),
    "gptj": Family(
        {
            "vocab_size": 50400, "n_positions": 2048, "n_embd": 4096, "n_layer": 28, "n_head": 16, "n_inner": None,
            "tie_word_embeddings": False,
        },
        _count_gptj,
        _GPT2_NAMES,
    ),
    "t5": Family(
        {
            "vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_decoder_layers": None, "num_heads": 8,
            "relative_attention_num_buckets": 32, "feed_forward_proj": "relu", "tie_word_embeddings": True,
        },
        _count_t5,
        {
            "hidden_size": "d_model", "num_hidden_layers": "num_layers", "num_attention_heads": "num_heads", "intermediate_size": "d_ff",
        },
        crosses=True,
    ),
    "whisper": Family(
        {
            "vocab_size": 51865, "d_model": 384, "decoder_layers": 4, "decoder_attention_heads": 6, "decoder_ffn_dim": 1536,
            "max_target_positions": 448, "tie_word_embeddings": True,
        },
        None,
        {
            "hidden_size": "d_model", "num_hidden_layers": "decoder_layers", "num_attention_heads": "decoder_attention_heads",
            "intermediate_size": "decoder_ffn_dim", "max_position_embeddings": "max_target_positions",
        },
        crosses=True,
    ),
}  # fmt: skip

CROSSING = frozenset({"t5", "mt5", "umt5", "longt5", "bart", "mbart", "pegasus", "marian", "m2m_100", "whisper"})  # encoder-decoders
