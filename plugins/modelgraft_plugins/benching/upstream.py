"""Shared upstream: the nodes that no swept value changes are computed once, and each cell is timed on what is left.

The results cache of a pipeline is no door for this: it looks up and copies inside the run, so inside what is timed, and it
would spare the swept nodes as well. What is left is therefore a graph of its own, whose inputs are the ports at the boundary
(`opened.py`). What is shared is found here, without loading anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import modelgraft as mg
from modelgraft.commands import segments_of, with_given

if TYPE_CHECKING:
    from modelgraft.plugin import Plan, SolvedGraph, Step
    from modelgraft_plugins.benching.cells import WantedCell

ON_A_ROUTE = "it lies on a route: what it gives may be absent for a record"


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """What the cells of one graph have in common.

    nodes    that are computed once, in the order in which they run; none: each cell runs whole, and `why` says why
    ports    what others take of them, as "node.port"
    apart    by node: why it is computed in each cell, although it is the same in all of them
    """

    nodes: Sequence[str] = ()
    ports: Sequence[str] = ()
    apart: Mapping[str, str] = field(default_factory=dict)
    why: str = ""


def solved_of(cell: WantedCell) -> SolvedGraph:
    """The checked graph of a cell."""
    return mg.check(mg.load(cell.graph, params=cell.params, allow=cell.allow))


def plan_of(cell: WantedCell, solved: SolvedGraph, *, outputs: Sequence[str] | None = None) -> Plan:
    """The plan of a graph of a cell, placed as it will be opened."""
    names = ("backend", "device", "precision", "threads", "max_memory")
    return mg.plan(solved, wanted=outputs, **{name: cell.opening[name] for name in names})


def upstream_of(cells: Sequence[WantedCell]) -> Upstream:
    """Find what the cells of one graph may share: all first nodes that are the same in all of them, with the same placement.

    Whatever the graph, each cell then computes what it computes as a whole: a node is left in each cell where what it gives may be
    absent, and where it is a part of a call that is not shared. Nothing is shared where nothing would be left to run.
    """
    if len(cells) < 2:
        return Upstream(why="one cell shares with nobody")
    looks = [_Look.at(cell) for cell in cells]
    digests = [look.digests() for look in looks]
    alike = {name for name, digest in digests[0].items() if digest and all(other.get(name) == digest for other in digests[1:])}
    apart = {name: ON_A_ROUTE for look in looks for name in look.routed() & alike}
    shared = looks[0].closed(alike - apart.keys())
    while odd := _torn(looks, shared):
        apart |= odd
        shared = looks[0].closed(shared - odd.keys())
    apart |= dict.fromkeys(alike - shared - apart.keys(), "it follows from one that each cell computes")
    why = _why_none(looks, alike, shared)
    if why:
        return Upstream(apart=apart, why=why)
    ports = dict.fromkeys(port for look in looks for port in look.boundary(shared))
    return Upstream(nodes=[name for name in looks[0].names if name in shared], ports=tuple(ports), apart=apart)


def _why_none(looks: Sequence[_Look], alike: Collection[str], shared: Collection[str]) -> str:
    if not alike:
        return "what is swept changes every node"
    if any(not set(look.names) - set(shared) for look in looks):
        return "what is swept changes no node, so that nothing would be left to measure"
    return "" if shared else "no node that is the same in every cell can be given to it"


def _torn(looks: Sequence[_Look], shared: Set[str]) -> dict[str, str]:
    """The shared nodes without which a cell would run other calls than it does as a whole, by name with the reason."""
    if not shared:
        return {}
    ports = tuple(dict.fromkeys(port for look in looks for port in look.boundary(shared)))
    found: dict[str, str] = {}
    for index, look in enumerate(looks):
        for call in look.calls(look.plan):
            ours = [name for name in call if name in shared]
            if 0 < len(ours) < len(call):
                found |= dict.fromkeys(ours, f"it is one call with {', '.join(name for name in call if name not in shared)}")
        if found:
            return found
        whole = set(look.calls(look.plan))
        for call in whole - set(look.calls(look.rest_plan(shared))):
            if not shared >= set(call):
                found |= {name: f"without it {' and '.join(call)} would be no single call" for name in look.feeding(call, shared)}
        if index == 0:
            given = set(look.calls(look.giver_plan(ports)))
            found |= {name: "what it gives lies within one call" for call in whole - given if shared >= set(call) for name in call}
    return found


@dataclass(frozen=True, slots=True)
class _Look:
    """A cell as the search sees it: checked and planned, nothing loaded."""

    cell: WantedCell
    solved: SolvedGraph
    plan: Plan

    @classmethod
    def at(cls, cell: WantedCell) -> _Look:
        solved = solved_of(cell)
        return cls(cell, solved, plan_of(cell, solved, outputs=cell.outputs))

    @property
    def names(self) -> list[str]:
        """The nodes that run, in their order."""
        return [step.node.name for step in self.plan.steps]

    def digests(self) -> dict[str, str]:
        """What the results of each node depend on, beside what a run is given; "" where nobody can tell.

        The keys of plans say what is computed; where it is computed is added for code that a place matters to.
        """
        anywhere = mg.plan(self.solved, wanted=self.cell.outputs, backend="torch", device="cpu", dtype="float32", precision="float32")
        found: dict[str, str] = {}
        for step, free in zip(self.plan.steps, anywhere.steps, strict=True):
            feeders = [found[name] for name in sorted(step.node.feeders)]
            given = [(name, str(self.solved.inputs[name].port), repr(self.solved.inputs[name].default)) for name in step.reads]
            parts = [free.key, _place_of(step), feeders, given, self.cell.seed, self.cell.init, self.cell.fallback]
            whole = hashlib.sha256(repr(parts).encode()).hexdigest()
            found[step.node.name] = whole if free.key and all(feeders) else ""
        return found

    def routed(self) -> set[str]:
        """The nodes that have a route or come after one: what they give may be absent for a record."""
        found: set[str] = set()
        for step in self.plan.steps:
            if step.node.when is not None or step.node.feeders & found:
                found.add(step.node.name)
        return found

    def closed(self, nodes: Collection[str]) -> set[str]:
        """Those of the nodes that need no others."""
        found: set[str] = set()
        for step in self.plan.steps:
            if step.node.name in nodes and step.node.feeders <= found:
                found.add(step.node.name)
        return found

    def boundary(self, shared: Collection[str]) -> list[str]:
        """What is read of the shared nodes, by others or as an output."""
        refs = [ref for step in self.plan.steps if step.node.name not in shared for ref in step.node.references]
        return [str(ref) for ref in dict.fromkeys([*refs, *self.plan.wanted.values()]) if ref.node in shared]

    def feeding(self, call: Collection[str], shared: Collection[str]) -> set[str]:
        """The shared nodes that the nodes of a call read."""
        return {ref.node for step in self.plan.steps if step.node.name in call for ref in step.node.references if ref.node in shared}

    def rest_plan(self, shared: Collection[str]) -> Plan:
        """The plan of what is left."""
        return plan_of(self.cell, with_given(self.solved, shared, wanted=self.cell.outputs))

    def giver_plan(self, ports: Sequence[str]) -> Plan:
        """The plan of what is shared."""
        return plan_of(self.cell, with_given(self.solved, (), wanted=ports))

    @staticmethod
    def calls(plan: Plan) -> list[tuple[str, ...]]:
        """The nodes that run as one call, each such group."""
        return [tuple(step.node.name for step in segment.steps) for segment in segments_of(plan)[0]]


def _place_of(step: Step) -> tuple[object, ...]:
    component = step.node.component
    if component.module is not None:
        return step.backend, step.device, step.dtype, step.precision, step.threads
    return (step.device, step.dtype) if component.function is None else ()
