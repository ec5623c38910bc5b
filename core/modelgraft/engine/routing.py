"""Absence: nodes that run for some records of a batch, and what the others get.

A `when` mask picks the records that a node runs for. Whatever follows from the others is absent: a node runs for the
records for which all its required inputs are present; records that lack different optional inputs run in groups of their
own. Of a port that is fed by a list of wires, those that are present are used. An input of the graph that a run leaves out is absent
for all records. Only plans with a `when`, or with an input that may be left out before a port that needs it, pay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelgraft.engine.backend import Call
from modelgraft.engine.layout import Job
from modelgraft.kernel.words.graph import GraphInput, Node, Ref, SolvedGraph
from modelgraft.kernel.words.order import reach
from modelgraft.kernel.words.ports import Port
from modelgraft.records.batch import NOTHING, Batch, Unlike, is_whole


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


def routed_nodes(jobs: Sequence[Job], graph: SolvedGraph) -> frozenset[str]:
    """The jobs with a node that has a route, or needs an input that may be left out, or comes after one of those, be it a cached one."""
    begins = [name for name, node in graph.nodes.items() if node.when is not None or needs_what_may_lack(node, graph.inputs)]
    if not begins:
        return frozenset()
    users: dict[str, set[str]] = {}
    for name, node in graph.nodes.items():
        for feeder in node.feeders:
            users.setdefault(feeder, set()).add(name)
    found = reach(begins, lambda name: users.get(name, set()))
    return frozenset(job.name for job in jobs if any(part.name in found for part in (job.step.node.parts or (job.step.node,))))


def needs_what_may_lack(node: Node, inputs: Mapping[str, GraphInput]) -> frozenset[Ref]:
    """The inputs of the graph that a run may leave out, and without which this node cannot run, or runs with fewer of a list."""
    needed = (ref for port, refs in node.wired.items() if not node.in_ports[port].optional or port in node.lists for ref in refs)
    return frozenset(ref for ref in needed if ref.is_input and ref.port in inputs and _may_lack(inputs[ref.port]))


def _may_lack(item: GraphInput) -> bool:
    return item.default is None and (item.port.optional or item.has_default)


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


def _allowed(mask: Any, total: int) -> list[int]:
    """The records that a route lets through; a record without a mask is not let through."""
    batch = Batch.of(mask)
    if batch.value is None:
        return []
    flags = batch.value if isinstance(batch.value, list) else batch.value.tolist()
    return [record for record, flag in zip(range(total) if batch.present is None else batch.present, flags, strict=True) if flag]


def _groups(arguments: Sequence[Any], roles: Sequence[Argument], allowed: Iterable[int]) -> list[tuple[tuple[bool, ...], tuple[int, ...]]]:
    """Put records together that have the same arguments: (which arguments are there, the records), in order of first record."""
    holders = [frozenset(Batch.of(value).present or ()) if value is None or isinstance(value, Batch) else None for value in arguments]
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
    if not isinstance(value, Batch) and (whole or len(records) == total):
        return value
    return Batch.of(value).take(records)


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
    found = [Batch(value, records) for records, value in results if value is not None]
    if not found:
        return NOTHING
    if is_whole(port.type):
        if len(found) > 1:
            raise TypeError(f"output '{name}' is {port}, which has no batch axis, but the records ran in {len(found)} groups")
        return found[0].value
    try:
        return Batch.join(found).on_wire(total)
    except Unlike as error:
        raise TypeError(f"output '{name}': the records ran in groups that gave {error}, which is no single batch") from error
