"""Absence: nodes that run for some records of a batch, and what the others get.

A `when` mask picks the records that a node runs for. Whatever follows from the others is absent: a node runs for the
records for which all its required inputs are present; records that lack different optional inputs run in groups of
their own. Of a port that is fed by a list of wires, those that are present are used. Only plans with a `when` pay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from modelgraft.engine.layout import Job
from modelgraft.kernel.words.graph import Node
from modelgraft.kernel.words.ports import Port, PortType, Tensor
from modelgraft.records.absence import ABSENT

Call = Callable[..., Any]  # what runs a node: takes and gives whatever the ports carry


@dataclass(frozen=True, slots=True)
class Partial:
    """The values of some records of a batch.

    records  their numbers in the batch, rising
    value    a batch of just these records; None when there are none
    """

    records: tuple[int, ...]
    value: Any


NOTHING: Final = Partial((), None)


@dataclass(frozen=True, slots=True)
class Argument:
    """How one argument of a node behaves.

    port    the arguments of one port come from a list of wires
    needed  the node cannot run without the port
    whole   the value is not made of records: it is handed on as it is
    """

    port: str
    needed: bool
    whole: bool


def routed_nodes(jobs: Sequence[Job]) -> frozenset[str]:
    """The nodes that have a route or come after one that has."""
    found: set[str] = set()
    for job in jobs:
        if job.step.node.when is not None or any(jobs[index].name in found for index in job.after):
            found.add(job.name)
    return frozenset(found)


def routed(call: Call, node: Node, *, count: Callable[[], int], check: Callable[[Any, int], Any]) -> Call:
    """Wrap what runs a node so that it runs for the records that are present.

    count  the size of the batch of the run;  check  looks at what the code gave for a batch of that size
    """
    roles = _roles(node)
    has_route = node.when is not None

    def run(*values: Any) -> Any:
        total = count()
        arguments = values[:-1] if has_route else values
        allowed = _allowed(values[-1], total) if has_route else range(total)
        results = []
        for present, records in _groups(arguments, roles, allowed):
            chosen = [
                _select(value, records, total, whole=role.whole) if there else None
                for value, role, there in zip(arguments, roles, present, strict=True)
            ]
            results.append((records, check(call(*chosen), len(records))))
        return _merge_ports(results, node, total)

    return run


def _roles(node: Node) -> tuple[Argument, ...]:
    """The role of each argument, without the route."""
    return tuple(
        Argument(name, not port.optional, is_whole(port.type))
        for name, port in node.in_ports.items()
        for _ in (node.wired.get(name) or (None,))
    )


def is_whole(kind: PortType) -> bool:
    """Say whether a value of this type is not made of records: a tensor whose first axis is not the batch."""
    if not isinstance(kind, Tensor) or not kind.axes or kind.axes[0] is None:
        return isinstance(kind, Tensor) and not kind.axes
    return kind.axes[0].symbol != "batch"


def _allowed(mask: Any, total: int) -> list[int]:
    """The records that a route lets through; a record without a mask is not let through."""
    records, values = (mask.records, mask.value) if isinstance(mask, Partial) else (range(total), mask)
    if values is None:
        return []
    flags = values if isinstance(values, list) else values.tolist()
    return [record for record, flag in zip(records, flags, strict=True) if flag]


def _groups(arguments: Sequence[Any], roles: Sequence[Argument], allowed: Iterable[int]) -> list[tuple[tuple[bool, ...], tuple[int, ...]]]:
    """Put records together that have the same arguments: (which arguments are there, the records), in order of first record."""
    holders = [
        frozenset(value.records) if isinstance(value, Partial) else None if value is not None else frozenset() for value in arguments
    ]
    needed = {role.port for role in roles if role.needed}
    groups: dict[tuple[bool, ...], list[int]] = {}
    for record in allowed:
        present = tuple(holder is None or record in holder for holder in holders)
        there = {role.port for role, is_there in zip(roles, present, strict=True) if is_there}
        if needed <= there:
            groups.setdefault(present, []).append(record)
    return [(present, tuple(records)) for present, records in groups.items()]


def _select(value: Any, records: tuple[int, ...], total: int, *, whole: bool) -> Any:
    """Some records of a value, as a batch of their own; the value itself when it is all of them."""
    if isinstance(value, Partial):
        if value.records == records:
            return value.value
        position = {record: index for index, record in enumerate(value.records)}
        return take(value.value, [position[record] for record in records])
    return value if whole or len(records) == total else take(value, records)


def take(batch: Any, positions: Sequence[int]) -> Any:
    """Some records of a batch: of a list, or of a tensor along its first axis."""
    if isinstance(batch, list):
        return [batch[position] for position in positions]
    return batch[list(positions)]


# -- putting groups together --------------------------------------------------------------------------------------------


def _merge_ports(results: list[tuple[tuple[int, ...], Any]], node: Node, total: int) -> Any:
    """What the node gives for the whole batch, from what its code gave for each group."""
    if len(node.out_ports) == 1:
        ((name, port),) = node.out_ports.items()
        return _merge(results, name, port, total)
    return {
        name: _merge([(records, result[name]) for records, result in results if name in result], name, port, total)
        for name, port in node.out_ports.items()
    }


def _merge(results: list[tuple[tuple[int, ...], Any]], name: str, port: Port, total: int) -> Any:
    found = [(records, value) for records, value in results if value is not None]
    if not found:
        return NOTHING
    if len(found) == 1:
        records, value = found[0]
        return value if len(records) == total or is_whole(port.type) else Partial(records, value)
    if is_whole(port.type):
        raise TypeError(f"output '{name}' is {port}, which has no batch axis, but the records ran in {len(found)} groups")
    order = sorted((record, position) for position, record in enumerate(record for records, _ in found for record in records))
    value = take(_concatenate([value for _, value in found], name), [position for _, position in order])
    return value if len(order) == total else Partial(tuple(record for record, _ in order), value)


def _concatenate(batches: list[Any], name: str) -> Any:
    if isinstance(batches[0], list):
        return [record for batch in batches for record in batch]
    import torch

    if len({tuple(batch.shape[1:]) for batch in batches}) > 1:
        shapes = " and ".join(str(list(batch.shape)) for batch in batches)
        raise TypeError(f"output '{name}': the records ran in groups that gave {shapes}, which is no single batch")
    return torch.cat(batches)


# -- what a user gets ---------------------------------------------------------------------------------------------------


def records_of(value: Any, total: int) -> list[Any]:
    """One entry per record: the record, or ABSENT."""
    if not isinstance(value, Partial):
        return [ABSENT] * total if value is None else [value[record] for record in range(total)]
    there: Mapping[int, int] = {record: position for position, record in enumerate(value.records)}
    return [value.value[there[record]] if record in there else ABSENT for record in range(total)]
