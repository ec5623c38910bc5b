"""Defaults of inputs: whether a value that a document states is one of the type, as a run would find when it reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from modelgraft.kernel.words.ports import DTYPES, ListOf, Modality, Port, PortType, Tensor

TEXTS = ("text", "label")
FREE = ("object",)  # any value
MESSAGE = frozenset({"role", "content"})


def wanted_default(kind: Port, default: Any) -> str | None:  # Any: whatever stands in the document
    """What the default of an input should have been, or None when it fits."""
    if default is None and kind.optional:
        return None
    records = [part for part in kind.types if not isinstance(part, Tensor)]
    misfits = [_misfit(part, default) for part in records[:1] or kind.types]  # as a run reads what is no array: the first that is a record
    return None if None in misfits else " or ".join(dict.fromkeys(filter(None, misfits)))


def _misfit(part: PortType, default: Any) -> str | None:
    if isinstance(part, Tensor):
        return _misfit_of_tensor(part, default)
    if isinstance(part, ListOf):
        return _misfit_of_list(part, default)
    if part.name in TEXTS:
        return None if isinstance(default, str) else "a text"
    if part.name == "conversation":
        return None if _is_conversation(default) else "a text, or a list of messages, each with role and content"
    return None if part.name in FREE else f"none: a value of type {part} is given to the run"


def _misfit_of_list(part: ListOf, default: Any) -> str | None:
    inner = part.item
    if isinstance(inner, Modality) and inner.name not in (*TEXTS, *FREE, "conversation"):
        return f"none: a value of type {part} is given to the run"
    is_batch = isinstance(default, list) and bool(default) and all(isinstance(entry, list) for entry in default)
    records = default if is_batch else [default]  # a list of lists is a batch of records, each a list
    if all(isinstance(record, list) and all(_misfit(inner, entry) is None for entry in record) for record in records):
        return None
    return "a list of texts" if isinstance(inner, Modality) and inner.name in TEXTS else f"a list of values of type {inner}"


def _is_conversation(default: Any) -> bool:
    if isinstance(default, list):
        return bool(default) and all(isinstance(message, Mapping) and set(message) == MESSAGE for message in default)
    return isinstance(default, str)


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
    if DTYPES[part.dtype] == DTYPES["mask"]:
        return None if all(are_truths) else f"{part}: true or false"
    if any(are_truths):
        return f"{part}: numbers"
    is_whole = DTYPES[part.dtype] <= DTYPES["int"]
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
