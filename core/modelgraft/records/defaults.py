"""Defaults of inputs: whether a value that a document states is one of the type, as a run would find when it reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from modelgraft.kernel.words.ports import DTYPE_FAMILIES, ListOf, Modality, Port, PortType, RecordKind, Tensor

RecordKinds = Mapping[str, RecordKind]  # the record types that there are, by name
UNSTATED = "none:"  # how a misfit begins of what cannot stand in a graph


def wanted_default(kind: Port, default: Any, types: RecordKinds) -> str | None:  # Any: whatever stands in the document
    """What the default of an input should have been, or None when it fits."""
    if default is None and kind.optional:
        return None
    records = [part for part in kind.types if not isinstance(part, Tensor)]
    misfits = [_misfit(part, default, types) for part in records[:1] or kind.types]  # as a run reads what is no array
    return None if None in misfits else " or ".join(dict.fromkeys(filter(None, misfits)))


def _misfit(part: PortType, default: Any, types: RecordKinds) -> str | None:
    if isinstance(part, Tensor):
        return _misfit_of_tensor(part, default)
    return _misfit_of_list(part, default, types) if isinstance(part, ListOf) else types[part.name].misfit(default)


def _misfit_of_list(part: ListOf, default: Any, types: RecordKinds) -> str | None:
    """Of a list each entry must fit; of an item that no graph can state, none can be told."""
    inner = part.item
    is_batch = isinstance(default, list) and bool(default) and all(isinstance(entry, list) for entry in default)
    records = default if is_batch else [default]  # a list of lists is a batch of records, each a list
    are_lists = all(isinstance(record, list) for record in records)
    entries = [entry for record in records for entry in record] if are_lists else [default]
    misfits = [text for entry in entries if (text := _misfit(inner, entry, types)) is not None]
    if any(text.startswith(UNSTATED) for text in misfits):
        return f"{UNSTATED} a value of type {part} is given to the run"
    if are_lists and not misfits:
        return None
    return f"a list of {inner}s" if isinstance(inner, Modality) else f"a list of values of type {inner}"


def _misfit_of_tensor(part: Tensor, default: Any) -> str | None:
    if not isinstance(default, (bool, int, float, list)):
        return "a number or a list of numbers"
    numbers = list(_numbers(default))
    if not all(isinstance(number, (bool, int, float)) for number in numbers):
        return f"{part}: numbers, in lists of lists"
    shape = _shape(default)
    if shape is None:
        return f"{part}: lists of one length on each level"
    return _misfit_of_numbers(part, numbers) or _misfit_of_shape(part, shape)


def _misfit_of_numbers(part: Tensor, numbers: list[Any]) -> str | None:
    """Whole numbers go for others, as where a run reads them; true and false are no numbers."""
    are_truths = [isinstance(number, bool) for number in numbers]
    if DTYPE_FAMILIES[part.dtype] == DTYPE_FAMILIES["mask"]:
        return None if all(are_truths) else f"{part}: true or false"
    if any(are_truths):
        return f"{part}: numbers"
    is_whole = DTYPE_FAMILIES[part.dtype] <= DTYPE_FAMILIES["int"]
    return f"{part}: whole numbers" if is_whole and any(isinstance(number, float) for number in numbers) else None


def _misfit_of_shape(part: Tensor, shape: tuple[int, ...]) -> str | None:
    fixed = [axis for axis in part.axes if axis is not None]
    if shape and shape[0] == 0 and part.axes[0] is not None and part.axes[0].symbol == "batch":
        return f"{part}: at least one record"
    is_open = len(fixed) != len(part.axes)
    if (len(shape) < len(fixed)) if is_open else (len(shape) != len(fixed)):
        return f"{part}: lists {len(fixed)} deep"
    wrong = [] if is_open else [axis for axis, size in zip(fixed, shape, strict=True) if axis.size not in (None, size)]
    return f"{part}: {wrong[0].size} entries where it says so" if wrong else None


def _numbers(default: Any) -> Iterator[Any]:
    if isinstance(default, list):
        for entry in default:
            yield from _numbers(entry)
    else:
        yield default


def _shape(default: Any) -> tuple[int, ...] | None:
    """The sizes of nested lists from the outside in; None when lists of one level differ."""
    if not isinstance(default, list):
        return ()
    inner = {_shape(entry) for entry in default} or {()}
    [shape] = inner if len(inner) == 1 else [None]
    return None if shape is None else (len(default), *shape)
