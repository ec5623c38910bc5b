"""What a config.json may hold under the names that every family uses: numbers of a size that something can have.

A config that asks for a thousand million layers would keep the checks busy, and one whose sizes are texts or lists of lists
would end in an error about something else. Keys that only one family has are for its reader to check.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from modelgraft.sources.headers import damaged

# key -> the most that it may say: well above the largest model there is
MOST: Mapping[str, int] = {
    **dict.fromkeys((
        "num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers", "decoder_layers", "num_decoder_layers", "depth",
        "cross_attention_frequency", "cross_layer_interval",
    ), 10_000),
    **dict.fromkeys((
        "num_attention_heads", "num_key_value_heads", "num_heads", "n_head", "n_heads", "encoder_attention_heads",
        "decoder_attention_heads", "num_local_experts", "num_experts", "n_routed_experts", "num_experts_per_tok", "head_dim",
        "num_channels", "num_mel_bins", "patch_size",
    ), 65_536),
    **dict.fromkeys((
        "hidden_size", "d_model", "n_embd", "embed_dim", "projection_dim", "word_embed_proj_dim", "image_size", "num_query_tokens",
        "num_image_tokens", "encoder_hidden_size",
    ), 1 << 20),
    **dict.fromkeys((
        "intermediate_size", "ffn_dim", "d_ff", "n_inner", "encoder_ffn_dim", "decoder_ffn_dim", "moe_intermediate_size",
    ), 1 << 24),
    **dict.fromkeys(("vocab_size", "type_vocab_size", "max_position_embeddings", "n_positions", "max_source_positions",
        "max_target_positions", "max_seq_len"), 1 << 30),
}  # fmt: skip
DEEPEST = 8  # of configs within configs: a part of a part of a whole is two


def check(path: Path, config: Mapping[str, Any]) -> None:
    """Raise SourceError `source-damaged` for the first value that no model can have, by its key."""
    for key, found, wanted in wrong(config):
        raise damaged(path, f"has {key}: {shown(found)}, wanted {wanted}", hint="repair the file, or fetch it again")


def wrong(config: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """(key, what it holds, what is wanted) for every value that no model can have."""
    return _wrong(config, "", 0)


def too_large(values: Mapping[str, Any]) -> Iterator[tuple[str, str, Any, str]]:
    """(field, key, what it holds, what is wanted) for the numbers of a component's config, and of a model's config within it."""
    for field, value in values.items():
        if isinstance(value, dict) and "model_type" in value:
            yield from ((field, f"{field}.{key}", found, wanted) for key, found, wanted in wrong(value))
        elif isinstance(value, int) and value > MOST.get(field, value):
            yield field, field, value, f"at most {MOST[field]:,}"


def _wrong(config: Mapping[str, Any], inside: str, deep: int) -> Iterator[tuple[str, Any, str]]:
    """(key, what it holds, what is wanted)."""
    kind = config.get("model_type")
    if kind is not None and not isinstance(kind, str):
        yield f"{inside}model_type", kind, "a text"
    for key, value in config.items():
        if key in MOST and value is not None and not _fits(value, MOST[key]):
            yield f"{inside}{key}", value, f"a whole number from 0 to {MOST[key]:,}"
        if not key.endswith("_config") or value is None:
            continue
        if deep >= DEEPEST:
            yield f"{inside}{key}", "...", f"configs within each other, at most {DEEPEST} deep"
        elif isinstance(value, dict):
            yield from _wrong(value, f"{inside}{key}.", deep + 1)
        elif key in PARTS:
            yield f"{inside}{key}", value, "a mapping"


PARTS = frozenset({"text_config", "vision_config", "audio_config", "qformer_config", "perceiver_config"})


def _fits(value: Any, most: int) -> bool:
    """A number of that size; some families give one for each layer, or for each side."""
    if isinstance(value, list):
        return bool(value) and all(_is_number(item, most) for item in value)
    return _is_number(value, most)


def _is_number(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def shown(value: Any) -> str:
    """What a file holds, in a message: the beginning of it, when it is long."""
    text = repr(value) if not isinstance(value, int) or abs(value) < 1 << 64 else "a number of more than 64 bits"
    return text if len(text) <= 60 else f"{text[:57]}..."
