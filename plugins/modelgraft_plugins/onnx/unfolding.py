"""Layers that stand in a traced graph by name alone become copies of the one that was traced: see `repeating.py`.

Between the marks of the traced layer lie the nodes that depend on what it was given or on its own weights; what depends on neither, such
as a mask or the number of tokens, was there before and is shared. A copy has its inputs from where the name stood, and the
weights of the layer of that name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelgraft.plugin import ExportError

# Graph, Node and Value of onnx_ir, which is not among what mypy sees.
Graph = Any
Node = Any
Value = Any


@dataclass(frozen=True, slots=True)
class Region:
    """What lies between the marks of a traced layer.

    taken, given  the values that came out of the first mark, and went into the second
    own           the layer's weights, by the names that they have within it
    nodes         in the order in which they stand
    """

    taken: tuple[Value, ...]
    given: tuple[Value, ...]
    own: Mapping[str, Value]
    nodes: tuple[Node, ...]


def unfold(graph: Graph, layers: Mapping[str, Mapping[str, Any]], *, domain: str) -> int:
    """Put copies where layers stand by name, and take the marks away; gives how many copies there are.

    layers  for each layer its weights as tensors of onnx_ir, by the names that they have within it

    Raises ExportError for a layer that cannot be copied: with a branch, or with weights that are not its own.
    """
    marks = [node for node in graph if node.domain == domain]
    regions: dict[str, Region] = {}
    copies = 0
    for node in marks:
        key = node.attributes["key"].value
        if node.op_type == "Leave" and key not in regions:
            enter = next(other for other in marks if other.op_type == "Enter" and other.attributes["key"].value == key)
            regions[key] = _region(graph, enter, node, key.partition(" ")[0], layers)
        elif node.op_type == "Layer":
            name = node.attributes["layer"].value
            _copy(graph, regions[key], node, name, layers[name])
            copies += 1
    for node in marks:
        if node.op_type != "Layer":
            for output, given in zip(node.outputs, node.inputs, strict=True):
                _replace(graph, node, output, given)
        graph.remove(node, safe=True)
    return copies


def _region(graph: Graph, enter: Node, leave: Node, first: str, layers: Mapping[str, Mapping[str, Any]]) -> Region:
    own = {name: graph.initializers[f"{first}.{name}"] for name in layers[first] if f"{first}.{name}" in graph.initializers}
    missing = [name for name in layers[first] if name not in own]
    depends = {*enter.outputs, *own.values()}
    nodes: list[Node] = []
    for node in graph:
        if node is leave:
            break
        if any(value in depends for value in node.inputs if value is not None):
            nodes.append(node)
            depends.update(node.outputs)
    wanted, needed = set(leave.inputs), list[Node]()
    for node in reversed(nodes):
        if any(output in wanted for output in node.outputs):
            needed.append(node)
            wanted.update(value for value in node.inputs if value is not None)
    if any(attribute.type.name in {"GRAPH", "GRAPHS"} for node in needed for attribute in node.attributes.values()):
        raise ExportError(f"{first} has a branch, and cannot be copied")
    if missing:
        raise ExportError(f"{first} shares {', '.join(missing)} with other modules, and cannot be copied")
    return Region(tuple(enter.outputs), tuple(leave.inputs), own, tuple(reversed(needed)))


def _copy(graph: Graph, region: Region, place: Node, layer: str, weights: Mapping[str, Any]) -> None:
    """Put a copy of a region before the node that names a layer, and let what it gives be read instead."""
    import onnx_ir as ir

    mine: dict[Any, Any] = dict(zip(region.taken, place.inputs, strict=True))
    used = {value for node in region.nodes for value in node.inputs if value is not None}
    for name, value in region.own.items():
        if value in used:
            mine[value] = _weight(graph, f"{layer}.{name}", weights[name])
    made: list[Any] = []
    for node in region.nodes:
        outputs = [ir.Value(name=f"{layer}/{value.name}", shape=value.shape, type=value.type) for value in node.outputs]
        inputs, attributes = [mine.get(value, value) for value in node.inputs], list(node.attributes.values())
        named = f"{layer}/{node.name}" if node.name else None
        made.append(ir.Node(node.domain, node.op_type, inputs, attributes, overload=node.overload, outputs=outputs, name=named))
        mine.update(zip(node.outputs, outputs, strict=True))
    graph.insert_before(place, made)
    for output, given in zip(place.outputs, region.given, strict=True):
        _replace(graph, place, output, mine.get(given, given))


def _weight(graph: Graph, name: str, tensor: Any) -> Value:
    import onnx_ir as ir

    if name not in graph.initializers:
        value = ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
        graph.register_initializer(value)
    return graph.initializers[name]


def _replace(graph: Graph, place: Node, old: Value, new: Value) -> None:
    """Let one value be read in place of another; an output of the graph keeps its name."""
    import onnx_ir as ir

    if not old.is_graph_output():
        old.replace_all_uses_with(new)
        return
    same = ir.node("Identity", [new])
    same.outputs[0].shape, same.outputs[0].type, name = old.shape, old.type, old.name
    graph.insert_before(place, same)
    old.replace_all_uses_with(same.outputs[0], replace_graph_outputs=True)
    old.name, same.outputs[0].name = f"{name}.named", name
