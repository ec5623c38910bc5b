"""Which decoder-only models `plain.py` builds, read from their config.json to the last key, and what it builds them with.

LLaMA; Mistral without a window, which is the same; Qwen2, which adds three biases; Qwen3, which norms queries and keys head by head.
Rotary positions as they are, slowed down evenly ("linear"), or by how fast a pair turns, as LLaMA 3.1 does ("llama3").
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

Facts = Mapping[str, Any]  # a config.json

# Keys that are obeyed. A config must have the first ones: their defaults differ between versions of transformers.
NEEDED = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "rms_norm_eps",
    "tie_word_embeddings", "eos_token_id",
)  # fmt: skip
OBEYED = frozenset(
    {*NEEDED, "model_type", "num_key_value_heads", "head_dim", "rope_theta", "rope_parameters", "rope_scaling", "pad_token_id"}
)
# Keys that are obeyed when they have a value that changes nothing, or one of those here.
ONLY: Mapping[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",), "attention_bias": (False, None), "mlp_bias": (False, None),
    "pretraining_tp": (1, None), "use_sliding_window": (False, None), "quantization_config": (None,), "rope_interleaved": (False, None),
}  # fmt: skip
# Keys that say nothing of how answers are computed.
SILENT = frozenset({
    "architectures", "_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache", "initializer_range", "attention_dropout",
    "max_position_embeddings", "bos_token_id", "is_llama_config", "max_window_layers",
})  # fmt: skip
# What values of keys that are obeyed or silent may be, beside none at all: others are left to transformers, which says what is wrong.
OF_KINDS: Mapping[str, type | tuple[type, ...]] = {
    "rms_norm_eps": (int, float), "tie_word_embeddings": bool, "use_cache": bool, "initializer_range": (int, float),
    "attention_dropout": (int, float), "max_position_embeddings": int, "max_window_layers": int, "architectures": list,
    "transformers_version": str, "torch_dtype": str, "dtype": str,
}  # fmt: skip
BIASED = {"llama": False, "mistral": False, "qwen2": True, "qwen3": False}  # model type -> whether queries, keys and values have a bias
NORMED = frozenset({"qwen3"})  # model types whose queries and keys are normed head by head
UNREAD_WINDOW = frozenset({"qwen2", "qwen3"})  # those that look at `sliding_window` where `use_sliding_window` is set alone
DEFAULT_PAIRS = {"mistral": 8, "qwen2": 32, "qwen3": 32}  # keys and values of a config that does not say how many, as their classes have it
DEFAULT_HEAD = {"qwen3": 128}  # width of a head likewise; elsewhere it is a part of the width
# What rotary positions are told by, beside their kind and base: all of it must be there, and no more.
ROTARY: Mapping[str, frozenset[str]] = {
    "default": frozenset(),
    "linear": frozenset({"factor"}),
    "llama3": frozenset({"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}),
}


def serves(facts: Facts) -> bool:
    """Whether a config is of a model that `plain.py` builds, to the last key."""
    kind = facts.get("model_type")
    if kind not in BIASED or any(facts.get(key) is None for key in NEEDED) or rotary(facts) is None or not _sees_all(facts):
        return False
    if any(facts.get(key) is None for key, kinds in (("num_key_value_heads", DEFAULT_PAIRS), ("head_dim", DEFAULT_HEAD)) if kind in kinds):
        return False  # its class has a number for it, which may be another one tomorrow
    if any(facts.get(key) is not None and not isinstance(facts[key], kinds) for key, kinds in OF_KINDS.items()):
        return False
    known = OBEYED | ONLY.keys() | SILENT | {"sliding_window", "layer_types"}
    return facts.keys() <= known and all(facts[key] in allowed for key, allowed in ONLY.items() if key in facts) and _divides(facts)


def _sees_all(facts: Facts) -> bool:
    """Whether each token sees all that are before it, however far."""
    kind, layers = facts["model_type"], facts.get("layer_types")
    if facts.get("use_sliding_window") or (kind == "llama" and facts.keys() & {"sliding_window", "layer_types"}):
        return False
    is_full = layers is None or (
        isinstance(layers, list) and set(layers) == {"full_attention"} and len(layers) == facts["num_hidden_layers"]
    )
    if kind == "mistral" and ("sliding_window" not in facts or layers is not None):
        return False  # its class has a window where the config says nothing
    return is_full and (kind in UNREAD_WINDOW or facts.get("sliding_window") is None)


def _divides(facts: Facts) -> bool:
    """Whether the numbers go together; what transformers says of those that do not is left to it."""
    heads, pairs = facts["num_attention_heads"], facts.get("num_key_value_heads") or facts["num_attention_heads"]
    fits = facts["hidden_size"] % heads == 0 or facts.get("head_dim") is not None
    return fits and heads % pairs == 0 and head_size(facts) % 2 == 0


def head_size(facts: Facts) -> int:
    """The width of a head."""
    return int(facts.get("head_dim") or facts["hidden_size"] // facts["num_attention_heads"])


def rotary(facts: Facts) -> Facts | None:
    """The kind of the rotary positions (`rope_type`), their base (`rope_theta`) and what else they are told by; None for those of others.

    Told as transformers 5 writes them (`rope_parameters`), or as before it (`rope_theta` beside `rope_scaling`).
    """
    given = facts.get("rope_parameters")
    if given is None:
        given = facts.get("rope_scaling") or {}
        if isinstance(given, Mapping) and "rope_theta" not in given:
            given = {**given, "rope_theta": facts.get("rope_theta")}
    elif facts.get("rope_scaling") is not None:
        return None
    if not isinstance(given, Mapping) or facts.get("rope_theta") not in (None, given.get("rope_theta")):
        return None
    found = {"rope_type": "default", **given}
    if found.get("type", found["rope_type"]) != found["rope_type"]:  # as files of former times call it
        return None
    found.pop("type", None)
    wanted = ROTARY.get(found["rope_type"]) if isinstance(found["rope_type"], str) else None
    if wanted is None or found.keys() != wanted | {"rope_type", "rope_theta"}:
        return None
    return found if all(isinstance(found[key], int | float) and found[key] for key in (*wanted, "rope_theta")) else None


def frequencies(facts: Facts, device: torch.device | None = None) -> Tensor:
    """By what angle each pair of a head turns from one position to the next, float32[head_size/2].

    Source: Su et al. 2021 (arXiv 2104.09864); "llama3": Dubey et al. 2024 (arXiv 2407.21783), as published with its weights.
    """
    told = rotary(facts)
    assert told is not None  # see `serves`
    width = head_size(facts)
    plain: Tensor = 1.0 / float(told["rope_theta"]) ** (torch.arange(0, width, 2, dtype=torch.float32, device=device) / width)
    if told["rope_type"] == "default":
        return plain
    if told["rope_type"] == "linear":
        slower: Tensor = plain / told["factor"]
        return slower
    slow, fast, length = told["low_freq_factor"], told["high_freq_factor"], told["original_max_position_embeddings"]
    waves = 2 * math.pi / plain  # positions that a whole turn takes
    share = (length / waves - slow) / (fast - slow)  # of the pairs between: how much of the plain frequency they keep
    between = (1 - share) * plain / told["factor"] + share * plain
    slowed = torch.where(waves > length / slow, plain / told["factor"], plain)
    return torch.where((waves > length / slow) | (waves < length / fast), slowed, between)
