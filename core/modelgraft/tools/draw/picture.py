"""What a drawing shows, apart from how: boxes and wires of a checked graph or of its plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from modelgraft.engine.asking import asked_by, branches_of, outputs_of
from modelgraft.kernel.words.graph import GraphInput, Node, Ref, SolvedGraph
from modelgraft.kernel.words.guard import contained
from modelgraft.kernel.words.plan import Parameters, Plan, Step
from modelgraft.kernel.words.ports import ListOf, Modality, Port, PortType
from modelgraft.records.amounts import in_bytes, short_count
from modelgraft.records.record_type import types_of
from modelgraft.tools.draw.palette import ANY, Colours, palette

FROZEN, TRAINED = "frozen", "trained"


@dataclass(frozen=True, slots=True)
class Box:
    """An input, a node or an output; or a graph that stands as a node, folded.

    id      unique in the picture: `inputs.image`, `vision`, `eye/vision` in a graph that stands as `eye`, `outputs.text`
    role    input | node | output | graph
    lines   what stands below the name: the component, the parameters, adapters
    mark    `frozen` or `trained` for a node with parameters, else ""
    family  of an input or output: what decides its colour, see `family_of`
    facts   what a reader may want to look up: (name, value, where it comes from)
    idle    the plan leaves it out
    parameters  how many; None when they are not known
    time    of a run that is laid over: what stands on the box, with its seconds and its share of the whole
    """

    id: str
    role: str
    name: str
    lines: tuple[str, ...]
    mark: str = ""
    family: str = ""
    facts: tuple[tuple[str, str, str], ...] = ()
    idle: bool = False
    parameters: int | None = 0
    time: str = ""
    seconds: float = 0.0
    share: float = 0.0


@dataclass(frozen=True, slots=True)
class Arrow:
    """A wire from an output port to an input port.

    giver, taker  ids of boxes;  out, into  names of the ports, "" where there is nothing to tell apart
    label         what travels, such as `float[batch 257 1408]`
    is_route      the wire decides which records go through the taker (`when`)
    """

    giver: str
    taker: str
    out: str
    into: str
    label: str
    family: str
    is_route: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    """Boxes in the order of inputs, nodes, outputs, and the arrows between them.

    gates   what the outputs of inner graphs are called, by graph, giver and its port: ("eye", "eye/vision", "tokens")
    totals  what holds of the whole: (name, value, note)
    run     of a run that is laid over: what it took, in words
    colours of the families of what travels: on paper, and on a dark page
    """

    name: str
    doc: str
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]
    gates: Mapping[tuple[str, str, str], str] = field(default_factory=dict)
    totals: tuple[tuple[str, str, str], ...] = ()
    run: str = ""
    colours: Colours = field(default_factory=dict)


def picture(subject: SolvedGraph | Plan) -> Picture:
    """Say what to draw; of a plan also what it costs and what it leaves out."""
    graph = subject.graph if isinstance(subject, Plan) else subject
    steps = subject.nodes if isinstance(subject, Plan) else {}
    idle = frozenset(subject.pruned) if isinstance(subject, Plan) else frozenset()
    boxes = [_input_box(given) for given in graph.inputs.values()]
    asked = asked_by(graph.nodes)
    nodes = graph.nodes.values()
    boxes += [_node_box(node, steps.get(node.name), is_idle=node.name in idle, asked=asked.get(node.name, ())) for node in nodes]
    boxes += [_output_box(name, ref, graph) for name, ref in graph.outputs.items()]
    arrows = tuple(_arrows(graph, steps))
    colours = palette(types_of(graph.graph.registry))
    return Picture(graph.name, graph.graph.doc, tuple(boxes), arrows, _gates(graph), tuple(_totals(boxes, subject)), colours=colours)


def _gates(graph: SolvedGraph) -> dict[tuple[str, str, str], str]:
    """The names of the outputs of inner graphs; of a node with one output its port is not told, as in arrows."""
    found = {}
    for name, ref in graph.graph.ports.items():
        inner, _, port = name.rpartition(".")
        if (node := graph.nodes.get(ref.node)) is not None:
            found[inner, ref.node, (ref.port or next(iter(node.out_ports))) if len(node.out_ports) > 1 else ""] = port
    return found


def _totals(boxes: list[Box], subject: SolvedGraph | Plan) -> Iterator[tuple[str, str, str]]:
    nodes = [box for box in boxes if box.role == "node"]
    weighty = sum(box.parameters != 0 for box in nodes)
    yield "nodes", str(len(nodes)), f"{weighty} with weights"
    if isinstance(subject, Plan):
        totals = subject.totals
        yield "parameters", _exact(totals.parameters), f"trained: {_exact(totals.trainable)}"
        yield "weights", in_bytes(totals.bytes), "in memory"
        where = dict.fromkeys(f"{step.backend} {step.device} {step.precision or step.dtype}" for step in subject.steps if step.bytes)
        if where:
            yield "runs on", ", ".join(where), ""
    graph = subject.graph if isinstance(subject, Plan) else subject
    for name, param in graph.graph.params.items():
        yield f"param {name}", _plain(param.value), param.doc
    for name, given in graph.inputs.items():
        yield f"takes {name}", str(given.port), given.doc
    for name, ref in graph.outputs.items():
        yield f"gives {name}", str(_given(graph, ref)), f"from {ref}"


def family_of(port: Port | None) -> str:
    """Sort a port into what shares a colour: a modality by its name, tensors by what their numbers mean."""
    if port is None:
        return ANY
    return _family_of_type(port.type)


def _family_of_type(kind: PortType) -> str:
    if isinstance(kind, Modality):
        return kind.name
    if isinstance(kind, ListOf):
        return _family_of_type(kind.item)
    return {"bool": "mask", "mask": "mask"}.get(kind.dtype, "tokens" if "int" in kind.dtype else "tensor")


def _input_box(given: GraphInput) -> Box:
    facts = [("type", str(given.port), "")]
    if given.has_default:
        facts.append(("default", repr(given.default), ""))
    if given.doc:
        facts.append(("about", given.doc, ""))
    return Box(f"inputs.{given.name}", "input", given.name, (str(given.port),), "", family_of(given.port), tuple(facts))


def _output_box(name: str, ref: Ref, graph: SolvedGraph) -> Box:
    port = _given(graph, ref)
    return Box(f"outputs.{name}", "output", name, (str(port),), "", family_of(port), (("type", str(port), ""), ("from", str(ref), "")))


def _given(graph: SolvedGraph, ref: Ref) -> Port | None:
    """The port of an output of the graph: of a branch that a record asks several times, a list."""
    port = graph.port_of(ref)
    return port and outputs_of(graph.nodes, ref, port, branches_of(graph.nodes))


def _node_box(node: Node, step: Step | None, *, is_idle: bool, asked: tuple[str, ...] = ()) -> Box:
    parameters = step.parameters if step else _by_formula(node)
    lines = [node.component.id]
    if parameters.total:
        lines.append(f"{short_count(parameters.total)} parameter{'s' * (parameters.total != 1)}")
    if node.share:
        lines.append(f"weights of {node.share}")
    lines += [f"+ {adapter.component.id}" for adapter in node.adapters]
    if asked:
        lines.append(f"once for each {', '.join(asked)}")
    has_weights = parameters.total != 0
    mark = (FROZEN if node.frozen and not parameters.trainable else TRAINED) if has_weights else ""
    facts = tuple(_facts(node, parameters, step))
    return Box(node.name, "node", node.name.rpartition("/")[2], tuple(lines), mark, "", facts, is_idle, parameters.total)


def _by_formula(node: Node) -> Parameters:
    try:
        with contained():
            total = node.config.parameters()
    except Exception:  # noqa: BLE001 the plan tells it; a drawing without the number is a drawing
        total = None
    return Parameters(total, 0 if node.frozen else total, "formula")


def _facts(node: Node, parameters: Parameters, step: Step | None) -> Iterator[tuple[str, str, str]]:
    yield "component", node.component.id, node.component.summary
    yield "kind", node.component.kind, ""
    if node.source is not None:
        yield "from", node.source.text, ""
    if parameters.total != 0:
        yield "parameters", _exact(parameters.total), f"trained: {_exact(parameters.trainable)}"
    if step is not None:
        yield "runs on", f"{step.backend} {step.device} {step.dtype}".strip(), ""
    for name, port in node.in_ports.items():
        yield f"takes {name}", str(port), ", ".join(map(str, node.wired.get(name, ()))) or "not wired"
    for name, port in node.out_ports.items():
        yield f"gives {name}", _shape(node, name, port, step), ""
    for name in type(node.config).model_fields:
        yield f"with {name}", _plain(getattr(node.config, name)), str(node.origins.get(name, "default"))


def _exact(number: int | None) -> str:
    return "not known without building" if number is None else f"{number:,}"


def _plain(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 300 else text[:297] + "..."


def _shape(node: Node, name: str, port: Port, step: Step | None) -> str:
    return step.shapes.get(name, str(port)) if step is not None else str(node.out_ports[name])


def _arrows(graph: SolvedGraph, steps: Mapping[str, Step]) -> Iterator[Arrow]:
    for node in graph.nodes.values():
        for into, refs in node.wired.items():
            for ref in refs:
                yield _arrow(graph, steps, ref, node.name, into if len(node.in_ports) > 1 else "")
        if node.when is not None:
            yield _arrow(graph, steps, node.when, node.name, "when", is_route=True)
    for name, ref in graph.outputs.items():
        yield _arrow(graph, steps, ref, f"outputs.{name}", "")


def _arrow(graph: SolvedGraph, steps: Mapping[str, Step], ref: Ref, taker: str, into: str, *, is_route: bool = False) -> Arrow:
    port = graph.port_of(ref)
    family = family_of(port)
    if ref.is_input:
        return Arrow(f"inputs.{ref.port}", taker, "", into, "", family, is_route)  # the input's box tells its type
    node = graph.nodes[ref.node]
    name = ref.port or next(iter(node.out_ports))
    label = _shape(node, name, node.out_ports[name], steps.get(ref.node))
    return Arrow(ref.node, taker, name if len(node.out_ports) > 1 else "", into, label, family, is_route)
