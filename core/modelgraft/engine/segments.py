"""Segments: connected steps of a plan that a backend can run as one call, and where and why the plan is cut.

vision -> qformer -> project of one backend become one segment. A plan is cut where a value leaves to another kind of
step, where it was asked for, where a route starts or another set of records follows, where another device or precision
follows, and where one side can stay in the cache while the other changes (they read different inputs of the graph).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from graphlib import TopologicalSorter

from modelgraft.engine.asking import branches_of
from modelgraft.engine.left_out import is_marked, needs_what_may_lack
from modelgraft.kernel.words.graph import Ref
from modelgraft.kernel.words.order import reach
from modelgraft.kernel.words.plan import Plan, Step


@dataclass(frozen=True, slots=True)
class Segment:
    """Steps that run as one call.

    steps    in the order in which they run
    inputs   the values that come from outside, each once, in the order of first use
    outputs  the values that others need or that were asked for
    """

    steps: tuple[Step, ...]
    inputs: tuple[Ref, ...]
    outputs: tuple[Ref, ...]

    @property
    def name(self) -> str:
        """The names of its nodes, joined by +."""
        return "+".join(step.node.name for step in self.steps)


@dataclass(frozen=True, slots=True)
class Cut:
    """A wire between two steps that could have been one segment, and why they are not: the names of its ends."""

    giver: str
    taker: str
    reason: str


def segment(plan: Plan, fusible: Callable[[Step], str]) -> tuple[tuple[Segment, ...], tuple[Cut, ...]]:
    """Divide a plan into segments, in the order in which they can run.

    fusible  "" for a step that may join others, otherwise the reason why it may not
    """
    grouping = _Grouping(plan, fusible)
    for step in plan.steps:
        grouping.place(step)
    return grouping.segments(), tuple(grouping.cuts)


@dataclass(slots=True)
class _Group:
    steps: list[Step]
    reason: str
    needs: set[int] = field(default_factory=set)  # the groups that it takes values from


class _Grouping:
    def __init__(self, plan: Plan, fusible: Callable[[Step], str]) -> None:
        self.plan, self.fusible = plan, fusible
        self.groups: list[_Group] = []
        self.home: dict[str, int] = {}
        self.placed: dict[str, Step] = {}
        self.cuts: list[Cut] = []
        self.branches = branches_of(plan.graph.nodes)
        self.asked = {ref.node for ref in plan.wanted.values()}
        self.routes: dict[str, frozenset[Ref]] = {}  # the routes that a record must pass to reach a step

    def place(self, step: Step) -> None:
        """Put a step into the group of one of its producers, or into one of its own."""
        self.routes[step.node.name] = self._routes_of(step)
        reason = self.fusible(step) or self._may_lack(step)
        producers = [ref.node for ref in step.node.references if not ref.is_input]
        homes = list(dict.fromkeys(self.home[name] for name in producers))
        joined = None
        for name in dict.fromkeys(producers):
            why = self._why_not(step, name, reason, homes)
            if not why and joined is None:
                joined = self.home[name]
            elif self.home[name] != joined:
                self._note(name, step, why or "it joined another segment")
        if joined is None:
            joined = len(self.groups)
            self.groups.append(_Group([], reason))
        self.home[step.node.name], self.placed[step.node.name] = joined, step
        self.groups[joined].steps.append(step)
        self.groups[joined].needs |= set(homes) - {joined}

    def _routes_of(self, step: Step) -> frozenset[Ref]:
        """The routes before a step; those before an optional port do not decide whether it runs."""
        node = step.node
        needed = [ref for port, refs in node.wired.items() if not node.in_ports[port].optional for ref in refs]
        own = [node.when] if node.when is not None else []
        left_out = needs_what_may_lack(node, self.plan.graph.inputs)
        asks = [ref for ref in needed if not ref.is_input and self.plan.graph.nodes[ref.node].out_ports[ref.port].several]
        fails = [Ref(node.name, "failure")] if is_marked(node, self.plan.graph) else []
        return left_out.union(own, asks, fails, *(self.routes.get(ref.node, frozenset()) for ref in (*needed, *own)))

    def _may_lack(self, step: Step) -> str:
        """Why a step runs with and without an input, which a segment cannot; or an empty string."""
        node = step.node
        lacking = [
            port for port, refs in node.wired.items() if node.in_ports[port].optional and any(self.routes.get(ref.node) for ref in refs)
        ]
        return f"its input {lacking[0]} is absent for some records" if lacking else ""

    def _why_not(self, step: Step, producer: str, reason: str, homes: list[int]) -> str:
        """Why a step cannot join the group of a producer, or an empty string."""
        group = self.groups[self.home[producer]]
        before = self.placed[producer]
        if reason or group.reason:
            return reason or group.reason
        if step.node.when is not None:
            return "a route starts here"
        if producer in self.asked:
            return f"{producer} was asked for"
        if _placement(before) != _placement(step):
            return f"{_placement(before)}, then {_placement(step)}"
        if self.branches.get(producer) != self.branches.get(step.node.name):
            return "one of them runs once for each ask"
        if self.routes[producer] != self.routes[step.node.name]:
            return "they run for different records"
        if before.reads != step.reads:
            return "the first can stay in the cache while other inputs change"
        if any(self._comes_after(home, self.home[producer]) for home in homes if home != self.home[producer]):
            return "another path between them leaves the segment"
        return ""

    def _comes_after(self, later: int, earlier: int) -> bool:
        """Whether a group takes values from another one, directly or through others."""
        return earlier in reach([later], lambda group: self.groups[group].needs)

    def _note(self, producer: str, step: Step, reason: str) -> None:
        if not self.fusible(step) and not self.fusible(self.placed[producer]):
            self.cuts.append(Cut(producer, step.node.name, reason))

    def segments(self) -> tuple[Segment, ...]:
        """The groups as segments, ordered so that each comes after what it needs."""
        users: dict[Ref, set[int]] = {}
        for index, group in enumerate(self.groups):
            for step in group.steps:
                for ref in step.node.references:
                    users.setdefault(ref, set()).add(index)
        sorter = TopologicalSorter({index: sorted(group.needs) for index, group in enumerate(self.groups)})
        return tuple(self._segment(index, users) for index in sorter.static_order())

    def _segment(self, index: int, users: dict[Ref, set[int]]) -> Segment:
        steps = self.groups[index].steps
        inside = {step.node.name for step in steps}
        fed = (ref for step in steps for refs in step.node.wired.values() for ref in refs)  # a route decides who runs; it is no input
        inputs = dict.fromkeys(ref for ref in fed if ref.node not in inside)
        wanted = set(self.plan.wanted.values())
        given = [Ref(step.node.name, port) for step in steps for port in step.node.out_ports]
        outputs = tuple(ref for ref in given if ref in wanted or users.get(ref, set()) - {index})
        return Segment(tuple(steps), tuple(inputs), outputs)


def _placement(step: Step) -> str:
    threads = f" with {step.threads} threads" if step.threads is not None else ""
    return f"{step.backend} on {step.device} in {step.precision or step.dtype}{threads}"
