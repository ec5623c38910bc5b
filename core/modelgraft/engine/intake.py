"""From what a user gives to the values that a run starts with: every input read, all of one batch size."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelgraft.engine.opening import SEED, is_seed
from modelgraft.kernel.words.errors import InputError, choices, nearest
from modelgraft.kernel.words.graph import GraphInput
from modelgraft.records import values
from modelgraft.records.batch import Batch, is_whole
from modelgraft.records.record_type import Types
from modelgraft.records.values import Given, ReadInput
from modelgraft.sources.archives import located, only_cached

MOST_SHOWN = 40  # letters of a value in a message


@dataclass(slots=True)  # not frozen: made in every run, and freezing triples the cost
class Intake:
    """The inputs of a run, by name: lists of records or tensors, None for an optional one that was left out.

    count   the size of the batch;  single  no input was a batch, so outputs come back as single values
    said    what the user should know of values that are used, but not quite as they are
    """

    values: dict[str, Any]
    count: int
    single: bool
    said: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Inlet:
    """An input of a graph with what reads it, its name, and the types of Python whose single values are records as they are."""

    item: GraphInput
    read: ReadInput
    name: str
    plain: frozenset[type]


def inlet_of(item: GraphInput, types: Types) -> Inlet:
    """An input made ready to be read in every run.

    types  the record types that there are
    """
    plain = frozenset() if len(item.port.types) > 1 else values.plain_of(item.port.type, types)
    return Inlet(item, values.input_reader(item.name, item.port, types=types, find=located), item.name, plain)


def take_in(inputs: Mapping[str, Any], *, known: Mapping[str, GraphInput], needed: Collection[Inlet]) -> Intake:
    """Read the inputs that a run needs; others that the graph knows are left alone.

    Raises InputError for unknown and missing names, values that do not fit, and batches of different sizes.
    """
    if len(inputs) == len(needed) and (plain := _as_they_are(inputs, needed)) is not None:
        return Intake(plain, 1, True)
    for name in inputs:
        if name not in known:
            refuse_unknown(inputs, known)
    given: dict[str, Given | None] = {}
    found: dict[str, Any] = {}
    said: tuple[str, ...] = ()
    for inlet in needed:
        name = inlet.name
        given[name] = one = inlet.read(inputs[name]) if name in inputs else default(inlet)
        if one is not None and one.single:
            found[name] = one.value
            if one.said:
                said += one.said
    return Intake(found, 1, True, said) if len(found) == len(given) else level(given, known)


def _as_they_are(inputs: Mapping[str, Any], needed: Iterable[Inlet]) -> dict[str, Any] | None:
    """The values of as many inputs where all are needed, and each is a record that is not read: most are, in graphs that cost little."""
    found = {}
    for inlet in needed:
        name = inlet.name
        if name not in inputs or type(inputs[name]) not in inlet.plain:
            return None
        found[name] = [inputs[name]]
    return found


def take_in_cached(inputs: Mapping[str, Any], *, known: Mapping[str, GraphInput], needed: Collection[Inlet]) -> Intake:
    """Read the inputs as `take_in` does, in a run that downloads nothing."""
    with only_cached("this run is offline"):
        return take_in(inputs, known=known, needed=needed)


def refuse_limit(limit_s: object) -> None:
    """Raise InputError for what cannot be the limit of a run."""
    if limit_s is not None and not (isinstance(limit_s, int | float) and limit_s > 0):
        raise InputError(f"limit_s is {limit_s!r}; wanted: seconds, more than 0, or None")


def refuse_seed(seed: object) -> None:
    """Raise InputError for what cannot be a seed: generators of numbers take whole numbers of 64 bits."""
    if not is_seed(seed):
        raise InputError(f"seed is {seed!r}; wanted: {SEED}")


def refuse_unnamed(method: str, unnamed: Sequence[object], known: Mapping[str, GraphInput]) -> None:
    """Raise InputError for what was given without a name, and say how it is written."""
    if not unnamed:
        return
    takes = choices([f"{item.name} ({item.port})" for item in known.values()], sort=False)
    told = ", ".join(map(values.describe, unnamed))
    raise InputError(f"found {told} without a name; the inputs are: {takes}. Write {method}({_as_arguments(unnamed[0], known)})")


def _as_arguments(value: object, names: Iterable[str]) -> str:
    """A value as the first of some arguments, the others left open."""
    shown = repr(value) if isinstance(value, str | bytes | int | float) and len(repr(value)) <= MOST_SHOWN else "..."
    return ", ".join(f"{name}={shown if index == 0 else '...'}" for index, name in enumerate(names))


def refuse_unknown(inputs: Mapping[str, Any], known: Mapping[str, GraphInput]) -> None:
    """Raise InputError for a name that is no input of the graph, with the inputs that there are."""
    for name in inputs:
        if name not in known:
            break
    else:
        return
    listed = [f"{item.name} ({item.port})" for item in known.values()]
    raise InputError(f"the graph has no input '{name}'; it has: {choices(listed)}. {nearest(name, known)}".strip())


def read(inlet: Inlet, inputs: Mapping[str, Any]) -> Given | None:
    """Read one input: what was given, or its default; None when it is optional and there is neither."""
    name = inlet.item.name
    return inlet.read(inputs[name]) if name in inputs else default(inlet)


def default(inlet: Inlet) -> Given | None:
    """What stands for an input that was not given. Raises InputError where nothing does."""
    item = inlet.item
    if item.has_default and item.default is not None:
        return inlet.read(item.default)
    if item.port.optional or item.has_default:
        return None
    raise InputError(f"input '{item.name}' is missing; wanted: {item.port}")


def level(given: Mapping[str, Given | None], known: Mapping[str, GraphInput]) -> Intake:
    """Repeat single records to the size of the batch. Raises InputError when batches differ in size."""
    batches = {name: one.count for name, one in given.items() if one is not None and not one.single and not _is_whole(known[name], one)}
    sizes = set(batches.values())
    if len(sizes) > 1:
        told = ", ".join(f"'{name}' has {size}" for name, size in sorted(batches.items()))
        raise InputError(f"the inputs are batches of different sizes: {told}; wanted: one size, or single values")
    count = sizes.pop() if sizes else 1
    spread = {name: _spread(known[name], one, count) for name, one in given.items()}
    return Intake(spread, count, not batches, said_of(given))


def said_of(given: Mapping[str, Given | None]) -> tuple[str, ...]:
    """What was said of the inputs, all together."""
    return tuple(text for one in given.values() if one is not None for text in one.said)


def _spread(item: GraphInput, one: Given | None, count: int) -> Any:
    if one is None or one.count == count or _is_whole(item, one):
        return None if one is None else one.value
    return Batch(one.value).spread(count)


def _is_whole(item: GraphInput, one: Given) -> bool:
    tensor = item.port.tensor
    return tensor is not None and not isinstance(one.value, list) and is_whole(tensor)
