"""A plan laid out for running: every value has a slot, every job knows its slots, and each slot is dropped at its last use.

Both ways of running, straight code and threads, read the same layout.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from modelgraft.kernel.words.graph import Ref
from modelgraft.kernel.words.order import reach
from modelgraft.kernel.words.plan import Plan, Step


@dataclass(frozen=True, slots=True)
class Job:
    """One step to run.

    takes  the slot of each argument, in the order of the ports; None for an unwired port. A port that is fed by a list
           takes one argument per wire. The route, when there is one, comes last
    gives  the output ports that somebody reads, each with its slot
    sole   the component has one output port, so that what its code returns is the value itself
    drops  the slots that nobody reads after this job
    after  the jobs that must have finished
    """

    step: Step
    takes: tuple[int | None, ...]
    gives: tuple[tuple[str, int], ...]
    sole: bool
    drops: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def name(self) -> str:
        """The name of the node."""
        return self.step.node.name


@dataclass(frozen=True, slots=True)
class Layout:
    """Jobs in an order in which they can run.

    given   what must be there before: inputs of the graph and cached values; they fill the first slots in this order
    wanted  the slot of each wanted output
    slots   what stands in each slot, for messages and partial outputs
    """

    jobs: tuple[Job, ...]
    given: tuple[Ref, ...]
    wanted: tuple[int, ...]
    slots: tuple[Ref, ...]

    def is_chain(self) -> bool:
        """Say whether no two jobs could ever run side by side."""
        blockers = self.blockers()
        return all(index - 1 in blockers[index] for index in range(1, len(self.jobs)))

    def blockers(self, *, alone: tuple[str, ...] = ("cuda",)) -> list[tuple[int, ...]]:
        """For each job those that it waits for, the one before it in the same lane included where the lane begins with `alone`."""
        latest: dict[str, int] = {}
        found = []
        for index, job in enumerate(self.jobs):
            lane = job.step.lane
            found.append((*job.after, latest[lane]) if lane in latest else job.after)
            if lane.startswith(alone):
                latest[lane] = index
        return found

    def gain(self, seconds: Sequence[float], *, alone: tuple[str, ...] = ("cuda",)) -> float:
        """How much time running side by side could save at best, given how long each job takes; see `blockers` for `alone`."""
        finish: list[float] = []
        for spent, before in zip(seconds, self.blockers(alone=alone), strict=True):
            finish.append(spent + max((finish[other] for other in before), default=0.0))
        return sum(seconds) - max(finish, default=0.0)


def arrange(steps: Sequence[Step], *, wanted: Collection[Ref], ready: Collection[str] = ()) -> Layout:
    """Lay out the steps that the wanted values need.

    ready  the nodes whose results are there already (from the cache): neither they nor what only they need is run
    """
    needed = needed_steps(steps, wanted=wanted, ready=ready)
    running = [step for step in steps if step.node.name in needed and step.node.name not in ready]
    made_here = {step.node.name for step in running}
    reads = {step.node.name: tuple(arguments(step)) for step in running}
    every = [ref for step in running for ref in reads[step.node.name] if ref is not None] + list(wanted)
    read = dict.fromkeys(every)
    given = tuple(ref for ref in read if ref.node not in made_here)
    outputs = {step.node.name: tuple(port for port in step.node.out_ports if Ref(step.node.name, port) in read) for step in running}
    slots = (*given, *(Ref(name, port) for name, ports in outputs.items() for port in ports))
    slot = {ref: index for index, ref in enumerate(slots)}
    drops = _last_uses(running, reads, slot, {slot[ref] for ref in wanted})
    position = {step.node.name: index for index, step in enumerate(running)}
    jobs = tuple(
        Job(
            step,
            tuple(None if ref is None else slot[ref] for ref in reads[name]),
            tuple((port, slot[Ref(name, port)]) for port in outputs[name]),
            len(step.node.out_ports) == 1,
            drops.get(name, ()),
            tuple(sorted({position[ref.node] for ref in reads[name] if ref is not None and ref.node in position})),
        )
        for step in running
        for name in (step.node.name,)
    )
    return Layout(jobs, given, tuple(slot[ref] for ref in wanted), slots)


def arguments(step: Step) -> Iterator[Ref | None]:
    """What feeds each argument of a step's code, the route last."""
    node = step.node
    for port in node.in_ports:
        yield from node.wired.get(port) or (None,)
    if node.when is not None:
        yield node.when


def needed_steps(steps: Sequence[Step], *, wanted: Collection[Ref], ready: Collection[str] = ()) -> set[str]:
    """The names of the steps that the wanted values need; what a ready step needs is not looked at."""
    by_name = {step.node.name: step for step in steps}

    def feeders(name: str) -> set[str]:
        return set() if name in ready or name not in by_name else by_name[name].node.feeders

    return reach((ref.node for ref in wanted), feeders) & by_name.keys()


def _last_uses(
    running: Sequence[Step], reads: Mapping[str, tuple[Ref | None, ...]], slot: Mapping[Ref, int], kept: Collection[int]
) -> dict[str, tuple[int, ...]]:
    last: dict[int, str] = {}
    for step in running:
        last.update((slot[ref], step.node.name) for ref in reads[step.node.name] if ref is not None)
    drops: dict[str, list[int]] = {}
    for index in sorted(last):
        if index not in kept:
            drops.setdefault(last[index], []).append(index)
    return {name: tuple(indexes) for name, indexes in drops.items()}


def spared(plan: Plan, layout: Layout) -> frozenset[str]:
    """The nodes that need not run, as the graph has them: those in the cache, and those that nothing else reads."""
    ran = {job.step.node.name for job in layout.jobs}
    return frozenset(part.name for step in plan.steps if step.node.name not in ran for part in (step.node.parts or (step.node,)))
