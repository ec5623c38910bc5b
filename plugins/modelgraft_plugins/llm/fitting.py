"""Whether what a prompt is made of fits a language model: the sizes of embeddings, and the ids of tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelgraft.plugin import InputError
from modelgraft_plugins.llm.config import LanguageConfig
from modelgraft_plugins.llm.embedded import is_embedded
from modelgraft_plugins.llm.prompts import Prompt
from modelgraft_plugins.llm.tokens import Tokenizer


def refuse_strangers(prompt: Prompt, tokenizer: Tokenizer, *, rows: int, kind: str | None, node: str) -> None:
    """Raise InputError for a token that the tokenizer knows and the embeddings, of which there are so many rows, do not."""
    places = frozenset(prompt.places)
    strange = next((token for place, token in enumerate(prompt.ids) if token >= rows and place not in places), None)
    if strange is not None:
        found = f"the tokenizer writes {tokenizer.inner.decode([strange])!r} as the id {strange:,}"
        there = f"the embeddings of {kind or 'the model'} have {rows:,} rows (0 to {rows - 1:,})"
        way_out = "leave it out of the text, or take the tokenizer and the weights of one checkpoint"
        raise InputError(f"{node}: {found}, and {there}: {way_out}")


def check_sizes(config: LanguageConfig, values: Mapping[str, Any], *, node: str) -> None:
    """Raise InputError for embeddings, by the fields of a template, of another width or number than the config says."""
    width = config.hidden_size
    for field in config.fields:
        value = values[field.name]
        if field.many:
            _check_many(f"{node}.{field.name}", value, width=width)
        elif is_embedded(value) and (value.ndim != 3 or width not in (None, value.shape[2])):
            shape = " ".join(map(str, value.shape))
            raise InputError(f"{node}.{field.name} got float[{shape}], wanted float[batch tokens {width}]")
        if field.tokens is not None and not (is_embedded(value) and value.shape[1] == field.tokens):
            got = f"{value.shape[1]} embeddings" if is_embedded(value) else "a text"
            raise InputError(f"{node}.{field.name} takes {field.tokens} embeddings, but got {got}")


def _check_many(place: str, value: Sequence[Sequence[Any]], *, width: int | None) -> None:
    """Of several media each is float[tokens width]."""
    shapes = (tuple(medium.shape) for media in value for medium in media if is_embedded(medium))
    if (wrong := next((shape for shape in shapes if len(shape) != 2 or width not in (None, shape[1])), None)) is not None:
        shape = " ".join(map(str, wrong))
        raise InputError(f"{place} got a medium of float[{shape}], wanted float[tokens {width}]")
