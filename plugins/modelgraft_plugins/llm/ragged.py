"""Media of unlike sizes: the embeddings of all media of a record in one row, and beside it what each of them is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelgraft.plugin import Array, InputError, as_tensor
from modelgraft_plugins.llm.embedded import cut
from modelgraft_plugins.llm.template import DEEP, GRIDS, LENGTHS, PACES, WORDS, Field


@dataclass(frozen=True, slots=True)
class Beside:
    """What is said of one medium.

    words  the text that stands in its place, with the placeholder for each of its embeddings, or runs of them; None: they stand alone
    grid   how many frames, rows and columns its embeddings are
    pace   how far a frame stands behind the one before it
    deep   float[layers tokens width]: what is added to its embeddings behind the first layers; None: nothing
    """

    words: str | None = None
    grid: tuple[int, int, int] | None = None
    pace: float = 1
    deep: Array | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Ragged:
    """The media of one record in their order, float[tokens width] each, and what is said of each."""

    media: list[Array]
    beside: list[Beside]


def gathered(fields: Sequence[Field], values: Mapping[str, Any], *, node: str) -> dict[str, Any]:
    """The values of fields, record by record; of a ragged one its media. `values`: of the fields, and of what comes beside them.

    Raises InputError for lengths, words or grids that do not fit the media.
    """
    found = dict[str, Any]()
    for field in fields:
        found[field.name] = values[field.name]
        if field.ragged:
            told = {kind: values[f"{field.name}_{kind}"] for kind in (LENGTHS, WORDS, GRIDS, PACES)}
            told[DEEP] = values.get(f"{field.name}_{DEEP}")
            rows = range(len(values[field.name]))
            found[field.name] = [_record(values[field.name][row], told, row, place=f"{node}.{field.name}") for row in rows]
    return found


def _record(embedded: Array, told: Mapping[str, Any], row: int, *, place: str) -> Ragged:
    """The media of one record, float[tokens width]."""
    lengths: list[int] = [int(length) for length in told[LENGTHS][row].tolist()]
    which = f" of record {row + 1}" if len(told[LENGTHS]) > 1 else ""
    if any(length < 0 for length in lengths) or sum(lengths) > len(embedded):
        found = f"{place}_{LENGTHS}{which} is {lengths}, together {sum(lengths):,}, and there are {len(embedded):,} embeddings"
        raise InputError(f"{found}; wanted: how many each medium has, 0 where a record has fewer media")
    while lengths and lengths[-1] == 0:  # which fill up
        lengths.pop()
    words = None if told[WORDS] is None else told[WORDS][row]
    if words is not None and len(words) != len(lengths):
        raise InputError(
            f"{place}_{WORDS}{which} has {len(words)} texts, and {place}_{LENGTHS} has {len(lengths)} media: wanted one for each"
        )
    deep = _deep(told[DEEP], embedded, lengths, row, place=f"{place}_{DEEP}{which}")
    beside = [
        Beside(
            None if words is None else str(words[number]),
            None if told[GRIDS] is None else tuple(told[GRIDS][row][number].tolist()),
            1 if told[PACES] is None else float(told[PACES][row][number]),
            deep[number],
        )
        for number in range(len(lengths))
    ]
    return Ragged(cut(embedded, lengths), beside)


def _deep(given: Any, embedded: Array, lengths: Sequence[int], row: int, *, place: str) -> Sequence[Array | None]:
    """Of each medium what stands behind its embeddings, float[layers tokens width]; `given`: of all records, None for nothing."""
    if given is None or not lengths:
        return [None] * len(lengths)
    found: Array = given[row]
    if found.ndim != embedded.ndim + 1 or tuple(found.shape[1:]) != tuple(embedded.shape):
        wanted = "one for each of them in every layer"
        raise InputError(f"{place} is {list(found.shape)}, and there are {list(embedded.shape)} embeddings; wanted: {wanted}")
    return cut(found, lengths, 1)


def deep_of(media: Sequence[Array], beside: Sequence[Beside | None]) -> Array | None:
    """float[layers tokens width]: what is added to the media behind the first layers, zeros for those that bring nothing. A tensor."""
    brought = [None if told is None or told.deep is None else as_tensor(told.deep) for told in beside]
    layers = next((deep.shape[0] for deep in brought if deep is not None), 0)
    if not layers:
        return None
    import torch

    filled = [as_tensor(one).new_zeros(layers, *one.shape) if deep is None else deep for one, deep in zip(media, brought, strict=True)]
    return torch.cat(filled, 1)
