"""Of what kind the values of a GGUF file are, by their keys, before anything is made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

MOST = 1 << 31  # of a size or an id


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_switch(value: Any) -> bool:
    return isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -MOST <= value <= MOST


def _is_natural(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST


def _is_size(value: Any) -> bool:
    return _is_natural(value) and value > 0


def _list_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(fits, value))


TEXT, SWITCH = ("a text", _is_text), ("true or false", _is_switch)
NATURAL, SIZE, NUMBER = ("a whole number", _is_natural), ("a whole number above 0", _is_size), ("a number", _is_number)
IDS = tuple(f"tokenizer.ggml.{name}_token_id" for name in ("bos", "eos", "eot", "eom", "padding", "unknown"))
KINDS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(("general.architecture", "tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.chat_template"), TEXT),
    **dict.fromkeys(("tokenizer.ggml.tokens", "tokenizer.ggml.merges"), ("a list of texts", _list_of(_is_text))),
    "tokenizer.ggml.token_type": ("a list of whole numbers", _list_of(_is_natural)),
    "tokenizer.ggml.scores": ("a list of numbers", _list_of(lambda value: isinstance(value, float))),
    **dict.fromkeys(("tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token", "tokenizer.ggml.add_space_prefix"), SWITCH),
}
# ends of the keys of an architecture
ENDS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys((
        ".vocab_size", ".context_length", ".embedding_length", ".block_count", ".feed_forward_length", ".attention.head_count",
        ".attention.head_count_kv", ".attention.key_length", ".attention.value_length", ".rope.dimension_count",
    ), SIZE),
    **dict.fromkeys((".attention.sliding_window", "_token_id"), NATURAL),
    **dict.fromkeys((".attention.layer_norm_rms_epsilon", ".rope.freq_base", ".rope.scaling.factor", ".rope.scale_linear"), NUMBER),
    ".rope.scaling.type": TEXT,
}  # fmt: skip


def check(metadata: Mapping[str, Any]) -> None:
    """Raise ValueError that names the first value of another kind than its key wants."""
    for key, value in metadata.items():
        rule = KINDS.get(key) or next((rule for end, rule in ENDS.items() if key.endswith(end)), None)
        if rule is not None and not rule[1](value):
            shown = repr(value)
            raise ValueError(f"its metadata state {key} = {shown if len(shown) <= 60 else shown[:57] + '...'}, wanted {rule[0]}")
    count = len(metadata.get("tokenizer.ggml.tokens", ()))
    for key in IDS:
        if count and metadata.get(key, 0) >= count:
            raise ValueError(f"its metadata state {key} = {metadata[key]}, and it has {count} tokens")
