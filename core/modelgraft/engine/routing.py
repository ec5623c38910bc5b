"""Absence: nodes that run for some records of a batch, and what the others get.

A `when` mask picks the records that a node runs for. Whatever follows from the others is absent: a node runs for the
records for which all its required inputs are present; records that lack different optional inputs run in groups of their
own. Of a port that is fed by a list of wires, those that are present are used. An input of the graph that a run leaves out is absent
for all records. In a branch that records ask several times (`asking`) the rows are asks. A node of `failure: mark` that fails gives nothing
for the rows that it fails for. Only plans with one of these, or with an input that may be left out before a port that needs it, pay.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from modelgraft.engine.asking import branches_of
from modelgraft.engine.backend import Call
from modelgraft.engine.layout import Job
from modelgraft.engine.left_out import is_marked, needs_what_may_lack
from modelgraft.engine.run import RECORDS
from modelgraft.kernel.words.errors import Cancelled, GraphError, PluginError
from modelgraft.kernel.words.graph import Node, SolvedGraph
from modelgraft.kernel.words.guard import contained, said
from modelgraft.kernel.words.order import reach
from modelgraft.kernel.words.ports import Port
from modelgraft.records.absence import ABSENT
from modelgraft.records.batch import NOTHING, Batch, RowNumber, Unlike, is_whole, record_of


@dataclass(frozen=True, slots=True)
class Fails:
    """What a run does about a node that may fail.

    tell        hears what a failure says, and how often it was met in a call
    is_stopped  whether the run was stopped, so that a failure is no failure
    """

    tell: Callable[[str, int], None]
    is_stopped: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Argument:
    """How one argument of a node behaves.

    port    the arguments of one port come from a list of wires
    needed  the node cannot run without the port
    whole   the value is not made of records: it is handed on as it is
    gathers  it takes all asks of a record as a list
    """

    port: str
    needed: bool
    whole: bool
    gathers: bool = False


def routed_nodes(jobs: Sequence[Job], graph: SolvedGraph) -> frozenset[str]:
    """The jobs with a node that has a route, or needs an input that may be left out, gives or takes asks or may fail, or comes after one of
    those, be it a cached one."""
    begins = [
        name
        for name, node in graph.nodes.items()
        if node.when is not None or needs_what_may_lack(node, graph.inputs) or _has_asks(node) or is_marked(node, graph)
    ]
    if not begins:
        return frozenset()
    users: dict[str, set[str]] = {}
    for name, node in graph.nodes.items():
        for feeder in node.feeders:
            users.setdefault(feeder, set()).add(name)
    found = reach(begins, lambda name: users.get(name, set()))
    return frozenset(job.name for job in jobs if any(part.name in found for part in (job.step.node.parts or (job.step.node,))))


def _has_asks(node: Node) -> bool:
    return any(port.several for ports in (node.in_ports, node.out_ports) for port in ports.values())


def is_asked(node: Node, asked: Collection[str]) -> bool:
    """Whether a node is one of those that run once for each ask; of one that stands for several, whether they are."""
    return any(part.name in asked for part in node.parts or (node,))


def asked_nodes(graph: SolvedGraph) -> frozenset[str]:
    """The nodes that run once for each ask."""
    return frozenset(branches_of(graph.nodes))


def routed(
    call: Call,
    node: Node,
    *,
    count: Callable[[], int],
    check: Callable[[Any, int], Any],
    is_asked: bool = False,
    fails: Fails | None = None,
) -> Call:
    """Wrap what runs a node so that it runs for the records that are present.

    count     the size of the batch of the run;  check  looks at what the code gave for a batch of that size
    is_asked  it runs once for each ask
    fails     what becomes of a failure after which the run goes on without what the node would have given; None: a failure ends the run
    """
    roles = _roles(node)
    has_route = node.when is not None

    is_apart = not any(is_whole(port.type) and not port.several for port in node.out_ports.values())

    def once(rows: tuple[RowNumber, ...], values: Sequence[Any], present: Sequence[bool], total: int) -> Any:
        chosen = [_select(value, rows, total, role) if there else None for value, role, there in zip(values, roles, present, strict=True)]
        return check(_called(call, chosen, rows), len(rows))

    def attempt(
        rows: tuple[RowNumber, ...], values: Sequence[Any], present: Sequence[bool], total: int, failures: list[str]
    ) -> list[tuple[tuple[RowNumber, ...], Any]]:
        if fails is None:
            return [(rows, once(rows, values, present, total))]
        try:
            with contained():
                return [(rows, once(rows, values, present, total))]
        except Exception as error:
            if isinstance(error, Cancelled) or fails.is_stopped():
                raise
            failure, is_of_load = said(error), isinstance(error, GraphError | PluginError)
        gc.collect()  # what a failed call has taken may be held by its error, in a cycle: the next one may need the room
        if is_of_load or not is_apart or len(rows) == 1:
            failures.append(failure)
            return []
        return [found for row in rows for found in attempt((row,), values, present, total, failures)]  # those that can be had alone are

    def run(*values: Any) -> Any:
        total = count()
        arguments = values[:-1] if has_route else values
        allowed = _allowed(values[-1], total) if has_route else list(range(total))
        asks = _asks(values, roles) if is_asked else ()
        groups = _groups(arguments, roles, _let_through(asks, allowed) if is_asked else allowed)
        failures: list[str] = []
        results = [result for present, rows in groups for result in attempt(rows, arguments, present, total, failures)]
        if fails is not None:
            for failure, times in Counter(failures).items():
                fails.tell(failure, times)
        return _merge_ports(results, node, total, asks)

    return run


def _called(call: Call, chosen: Sequence[Any], rows: Sequence[RowNumber]) -> Any:
    """What a call gives; what it tells of its records has their numbers in the batch of the run."""
    before = RECORDS.set([record_of(row) for row in rows])
    try:
        return call(*chosen)
    finally:
        RECORDS.reset(before)


def _roles(node: Node) -> tuple[Argument, ...]:
    """The role of each argument, without the route."""
    return tuple(
        Argument(name, not port.optional and not port.several, is_whole(port.type), bool(port.several))
        for name, port in node.in_ports.items()
        for _ in (node.wired.get(name) or (None,))
    )


def _allowed(mask: Any, total: int) -> list[RowNumber]:
    """The rows that a route lets through; a record without a mask is not let through."""
    batch = Batch.of(mask)
    if batch.value is None:
        return []
    flags = batch.value if isinstance(batch.value, list) else batch.value.tolist()
    return [row for row, flag in zip(range(total) if batch.present is None else batch.present, flags, strict=True) if flag]


def _groups(
    arguments: Sequence[Any], roles: Sequence[Argument], allowed: Sequence[RowNumber]
) -> list[tuple[tuple[bool, ...], tuple[RowNumber, ...]]]:
    """Put rows together that have the same arguments: (which arguments are there, the rows), in order of first row."""
    holders = [_holder(value) if not role.gathers else None for value, role in zip(arguments, roles, strict=True)]
    needed = {role.port for role in roles if role.needed}
    groups: dict[tuple[bool, ...], list[RowNumber]] = {}
    for row in allowed:
        present = tuple(holder is None or row in holder or record_of(row) in holder for holder in holders)
        there = {role.port for role, is_there in zip(roles, present, strict=True) if is_there}
        if needed <= there:
            groups.setdefault(present, []).append(row)
    return [(present, tuple(rows)) for present, rows in groups.items()]


def _holder(value: Any) -> frozenset[RowNumber] | None:
    """The rows that a value has; None: all of them."""
    return frozenset(Batch.of(value).present or ()) if value is None or isinstance(value, Batch) else None


def _asks(values: Sequence[Any], roles: Sequence[Argument]) -> tuple[RowNumber, ...]:
    """The asks that a node is for: those of what feeds it, and of its route, also where nothing came of them."""
    gathers = [role.gathers for role in roles] + [False] * (len(values) - len(roles))
    batches = (value for value, is_gathered in zip(values, gathers, strict=True) if isinstance(value, Batch) and not is_gathered)
    return next((batch.asks for batch in batches if batch.asks), ())


def _let_through(asks: Sequence[RowNumber], allowed: Sequence[RowNumber]) -> list[RowNumber]:
    """The asks that a route lets through, by themselves or as those of a record."""
    through = frozenset(allowed)
    return [row for row in asks if row in through or record_of(row) in through]


def _select(value: Any, rows: tuple[RowNumber, ...], total: int, role: Argument) -> Any:
    """Some rows of a value, as a batch of their own; the value itself when it is all of them."""
    if role.gathers:
        return Batch.of(value).gathered(map(record_of, rows))
    if not isinstance(value, Batch) and (role.whole or rows == tuple(range(total))):
        return value
    return Batch.of(value).take(rows)


# -- putting groups together --------------------------------------------------------------------------------------------


def _merge_ports(results: list[tuple[tuple[RowNumber, ...], Any]], node: Node, total: int, asks: tuple[RowNumber, ...]) -> Any:
    """What the node gives for the whole batch, from what its code gave for each group."""
    if len(node.out_ports) == 1:
        ((name, port),) = node.out_ports.items()
        return _merge(results, name, port, total, asks)
    return {
        name: _merge([(records, result[name]) for records, result in results if name in result], name, port, total, asks)
        for name, port in node.out_ports.items()
    }


def _merge(results: list[tuple[tuple[RowNumber, ...], Any]], name: str, port: Port, total: int, asks: tuple[RowNumber, ...]) -> Any:
    given = [(rows, value) for rows, value in results if value is not None]
    if not given:
        return Batch(None, (), asks) if asks else NOTHING
    if is_whole(port.type) and not port.several:
        if len(given) > 1:
            raise TypeError(f"output '{name}' is {port}, which has no batch axis, but the records ran in {len(given)} groups")
        return given[0][1]
    try:
        found = [batch for rows, value in given if (batch := _batch(rows, value, port, asks)).present]
        return Batch.join(found).on_wire(total) if found else Batch(None, (), asks) if asks else NOTHING
    except Unlike as error:
        gave = "its records ask with" if port.several else "the records ran in groups that gave"
        raise TypeError(f"output '{name}': {gave} {error}, which is no single batch") from error


def _batch(rows: tuple[RowNumber, ...], value: Any, port: Port, asks: tuple[RowNumber, ...]) -> Batch:
    """What the code gave for some rows: asks where it says so, without those that it gave nothing for."""
    if port.several:
        return Batch.of_asks(value, [record_of(row) for row in rows])
    if port.optional and isinstance(value, list) and any(record is ABSENT for record in value):
        there = [index for index, record in enumerate(value) if record is not ABSENT]
        return Batch([value[index] for index in there], tuple(rows[index] for index in there), asks)
    return Batch(value, rows, asks)
