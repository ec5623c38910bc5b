"""Settings of single records: those of one kind are answered together, and what comes of them is put back in the order of the batch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from modelgraft.plugin import Array, InputError, as_tensor, nearest
from modelgraft_plugins.llm.embedded import is_embedded
from modelgraft_plugins.llm.writing import WritingConfig

SEED = "seed"
FILLERS: Mapping[str, float] = {"ids": -1, "prompt_ids": -1, "continuation_ids": -1, "likelihoods": float("-inf")}  # the others: 0


def groups(said: Sequence[Any]) -> list[tuple[dict[str, Any], list[int]]]:
    """Settings with the records that they are for. said: of each record an object with settings, or nothing.

    Raises InputError for one that is no object.
    """
    found: dict[str, tuple[dict[str, Any], list[int]]] = {}
    for row, one in enumerate(said):
        if one is not None and not isinstance(one, Mapping):
            raise InputError(f"the settings of record {row} are {one!r}, wanted an object such as {{temperature: 0.7, max_new_tokens: 40}}")
        given = dict(one or {})
        try:
            key = json.dumps(given, sort_keys=True)
        except (TypeError, ValueError) as error:
            raise InputError(f"the settings of record {row} hold what is no JSON: {error}") from error
        found.setdefault(key, (given, []))[1].append(row)
    return list(found.values())


def over(config: Any, given: Mapping[str, Any], rows: Sequence[int], *, node: str) -> Any:
    """A config with settings of some records over its own. Raises InputError for one that there is not, or that does not fit."""
    names = WritingConfig.model_fields
    which = f"{node}.settings of record {rows[0]}"
    for name in given:
        if name not in names and name != SEED:
            raise InputError(f"{which}: there is no setting '{name}'. {nearest(name, (*names, SEED))}".rstrip())
    if not isinstance(given.get(SEED, 0), int):
        raise InputError(f"{which}: seed is {given[SEED]!r}, wanted a whole number")
    new = {name: value for name, value in given.items() if name != SEED}
    stated = {name: getattr(config, name) for name in names if name in config.model_fields_set}
    try:
        made = WritingConfig.model_validate({**stated, **new})
    except ValidationError as error:
        raise InputError(f"{which}: {'; '.join(map(_told, error.errors()))}") from error
    return config.model_copy(update={name: getattr(made, name) for name in new})


def _told(detail: Mapping[str, Any]) -> str:
    """What pydantic found, as the second half of a sentence, with the setting and its value where it is one alone."""
    words = str(detail["msg"]).removeprefix("Value error, ").replace("valid tuple", "list").replace("valid dictionary", "mapping")
    words, where = words[:1].lower() + words[1:], ".".join(map(str, detail["loc"]))
    return f"{where} is {detail['input']!r:.80}: {words}" if where else words


def picked(value: Any, rows: Sequence[int]) -> Any:
    """The values of some records."""
    if value is None:
        return None
    return value[list(rows)] if is_embedded(value) else [value[row] for row in rows]


def merged(found: Sequence[tuple[Sequence[int], Mapping[str, Any]]], count: int) -> dict[str, Any]:
    """Outputs of groups of records as those of so many records in their order; tensors are filled up to the longest."""
    made: dict[str, Any] = {}
    for name in found[0][1]:
        parts = [(rows, outputs[name]) for rows, outputs in found]
        made[name] = _tensors(parts, count, FILLERS.get(name, 0)) if is_embedded(parts[0][1]) else _lists(parts, count)
    return made


def _lists(parts: Sequence[tuple[Sequence[int], Sequence[Any]]], count: int) -> list[Any]:
    whole: list[Any] = [None] * count
    for rows, values in parts:
        for row, value in zip(rows, values, strict=True):
            whole[row] = value
    return whole


def _tensors(parts: Sequence[tuple[Sequence[int], Array]], count: int, filler: float) -> Array:
    import torch

    found: list[tuple[Sequence[int], torch.Tensor]] = [(rows, as_tensor(value)) for rows, value in parts]
    first = found[0][1]
    shape = [max(sizes) for sizes in zip(*(tensor.shape[1:] for _, tensor in found), strict=True)]
    whole = torch.full((count, *shape), filler, dtype=first.dtype, device=first.device)
    for rows, tensor in found:
        inside = tuple(slice(0, size) for size in tensor.shape[1:])
        for row, value in zip(rows, tensor, strict=True):
            whole[row][inside] = value
    return whole
