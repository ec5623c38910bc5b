"""Plans whose segments are single steps: what a backend can run as one call becomes one node of the plan.

A fused node stands for its parts (`Node.parts`). Its input ports are named after what feeds them and its output ports
after what they give, both as "node.port", so that whoever reads the plan still sees the names of the graph.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from modelgraft.engine.segments import Cut, Segment, segment
from modelgraft.kernel.words.graph import Node, Ref
from modelgraft.kernel.words.kinds import Component, Config
from modelgraft.kernel.words.plan import Parameters, Plan, Step
from modelgraft.kernel.words.ports import Axis, Port, Tensor


def why_alone(step: Step) -> str:
    """Why a step cannot share a segment with others, or an empty string. A step of another backend says nothing of interest."""
    node = step.node
    ports = (*(node.in_ports[name] for name in node.wired if name in node.in_ports), *node.out_ports.values())
    if not step.fuses:
        return f"it runs on {step.backend}"
    if node.component.module is None:
        return "it is plain code"
    if node.component.loop is not None:
        return "a loop goes around its parts"
    if not node.component.exportable:
        return f"{node.component.id} is not exportable"
    if node.adapters or node.share is not None or node.lists:
        return "it has adapters, shared weights or lists of wires"
    if any(port.several for port in ports):
        return "it asks a branch several times, or takes together what one gave"
    if any(not isinstance(port.type, Tensor) or len(port.types) > 1 for port in ports):
        return "it takes or gives records, not only tensors"
    return ""


def _alone_in(plan: Plan) -> Callable[[Step], str]:
    """As `why_alone`, for the steps of a plan: what lends its weights is loaded for those who take them, and would be held twice."""
    lending = {step.node.share for step in plan.steps}

    def why(step: Step) -> str:
        return why_alone(step) or ("another node shares its weights" if step.node.name in lending else "")

    return why


def segments_of(plan: Plan) -> tuple[tuple[Segment, ...], tuple[Cut, ...]]:
    """The segments of a plan that have several steps, and the cuts between steps that could have been one."""
    made, cuts = segment(plan, _alone_in(plan))
    return tuple(part for part in made if len(part.steps) > 1), cuts


def fuse(plan: Plan) -> Plan:
    """The same plan with each segment of several steps as one step; the plan itself when there is none."""
    if not any(step.fuses for step in plan.steps):
        return plan
    made, _ = segment(plan, _alone_in(plan))
    names = {step.node.name: part.name for part in made if len(part.steps) > 1 for step in part.steps}
    if not names:
        return plan
    moved = _Moves(names)
    steps = [moved.step(part.steps[0]) if len(part.steps) == 1 else _fused(part, plan, moved) for part in made]
    wanted = {name: moved.ref(ref) for name, ref in plan.wanted.items()}
    known = {step.node.name: step.node for step in steps}
    graph = replace(plan.graph, nodes={**plan.graph.nodes, **known})
    return replace(plan, graph=graph, wanted=wanted, steps=tuple(steps))


class _Moves:
    """Where the outputs of fused nodes are found now."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = names

    def ref(self, ref: Ref) -> Ref:
        home = self.names.get(ref.node)
        return ref if home is None else Ref(home, str(ref), ref.place)

    def step(self, step: Step) -> Step:
        node = step.node
        wired = {port: tuple(map(self.ref, refs)) for port, refs in node.wired.items()}
        return replace(step, node=replace(node, wired=wired, when=None if node.when is None else self.ref(node.when)))


def _fused(part: Segment, plan: Plan, moved: _Moves) -> Step:
    """One step for the steps of a segment."""
    first, last = part.steps[0], part.steps[-1]
    inputs = {str(ref): _input_port(ref, part, plan) for ref in part.inputs}
    outputs = {str(ref): _renamed(plan.graph.nodes[ref.node].out_ports[ref.port], ref.node) for ref in part.outputs}
    component = Component(
        id="+".join(step.node.component.id for step in part.steps),
        kind=last.node.component.kind,
        config=Config,
        summary="Several nodes as one call.",
        exportable=True,
        cache=any(step.node.component.cache for step in part.steps),
        random=any(step.node.component.random for step in part.steps),
    )
    node = Node(
        name=part.name,
        component=component,
        config=Config(),
        source=None,
        in_ports=inputs,
        out_ports=outputs,
        wired={str(ref): (moved.ref(ref),) for ref in part.inputs},
        lists=frozenset(),
        frozen=all(step.node.frozen for step in part.steps),
        when=first.node.when,
        lazy=any(step.node.lazy for step in part.steps),
        share=None,
        adapters=(),
        runtime=first.node.runtime,
        origins={},
        place=first.node.place,
        parts=tuple(step.node for step in part.steps),
    )
    keys = [step.key for step in part.steps]
    key = hashlib.sha256("\n".join([*keys, *outputs]).encode()).hexdigest() if all(keys) else ""
    shapes = {name: str(port) for name, port in outputs.items()}
    return replace(first, node=node, parameters=_sum(part.steps), bytes=_bytes(part.steps), shapes=shapes, key=key)


def _input_port(ref: Ref, part: Segment, plan: Plan) -> Port:
    """The type of what enters: sizes that a reader fixes are numbers, the free ones are named after what gives them."""
    given = plan.graph.inputs[ref.port].port if ref.is_input else plan.graph.nodes[ref.node].out_ports[ref.port]
    found = replace(_renamed(given, "" if ref.is_input else ref.node), several="")  # a row of it is what its reader gets
    for step in part.steps:
        for name, refs in step.node.wired.items():
            if ref in refs:
                found = _narrowed(found, step.node.in_ports[name])
    return found


def _renamed(port: Port, node: str) -> Port:
    kind = port.tensor
    if kind is None or not node:
        return port
    prefix = "".join(letter if letter.isalnum() else "_" for letter in node)
    return replace(port, types=(kind.rename({name: f"{prefix}_{name}" for name in kind.names if name != "batch"}),))


def _narrowed(port: Port, reader: Port) -> Port:
    mine, theirs = port.tensor, reader.tensor
    if mine is None or theirs is None or len(mine.axes) != len(theirs.axes):
        return port
    axes = tuple(
        other if isinstance(other, Axis) and other.size is not None else axis for axis, other in zip(mine.axes, theirs.axes, strict=True)
    )
    return replace(port, types=(Tensor(mine.dtype, axes),))


def _sum(steps: Iterable[Step]) -> Parameters:
    counts = [step.parameters for step in steps]
    totals, trainable = [count.total for count in counts], [count.trainable for count in counts]
    known = [number for number in totals if number is not None], [number for number in trainable if number is not None]
    return Parameters(
        sum(known[0]) if len(known[0]) == len(totals) else None,
        sum(known[1]) if len(known[1]) == len(trainable) else None,
        counts[0].how,
    )


def _bytes(steps: Iterable[Step]) -> int | None:
    sizes = [step.bytes for step in steps]
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None
