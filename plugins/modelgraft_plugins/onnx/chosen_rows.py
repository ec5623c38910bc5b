"""Of a sequence of which one token is chosen, the last layer is computed for that token alone.

A classifier reads the first token of what a tower gives, and each token of a layer is computed by itself, but for what it attends to. So
the choice is made before the last layer in place of behind it: queries, what follows attention and the norms are those of one token, while
keys and values stay those of all. A ViT of twelve layers takes a fourteenth fewer products by it.
"""

from __future__ import annotations

from typing import Any

from modelgraft_plugins.onnx.widening import constant_in, matrix_of

TOKENS = 1  # the axis of [batch tokens width]
AXES = 3
ONE_BY_ONE = frozenset(
    {"Cast", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "Identity", "Relu", "Sigmoid", "Softplus", "Swish", "Tanh"}
)
OF_TWO = frozenset({"Add", "Div", "Mul", "Pow", "Sub"})
NORMS = frozenset({"LayerNormalization", "RMSNormalization"})

# Model, Graph, Node and Value of onnx_ir, which is not among what mypy sees.
Model = Any
Graph = Any
Node = Any
Value = Any


def choose_early(model: Model) -> int:
    """Choose tokens before what computes each token by itself; gives how many choices were moved."""
    graph, moved = model.graph, 0
    choices = [node for node in graph if _is_choice(node) and _is_all_that_reads(node)]
    if choices:
        _tell_shapes(model)
    for node in choices:
        alone = _alone(graph, node) if _is_sequence(node.inputs[0]) else []
        if any(matrix_of(one) is not None for one in alone):
            _move(graph, node, alone)
            moved += 1
    return moved


def _is_choice(node: Node) -> bool:
    """Whether a node gives what stands at one place, known beforehand, of an axis that may be that of tokens."""
    place = node.inputs[1].const_value if node.op_type == "Gather" and not node.domain else None
    return place is not None and not len(place.shape) and _facts(node).get("axis", 0) == TOKENS


def _is_all_that_reads(choice: Node) -> bool:
    """Whether nothing but a choice reads what it chooses from: what gives that can otherwise not be computed for one token."""
    before = choice.inputs[0]
    return not before.is_graph_output() and len(before.uses()) == 1


def _tell_shapes(model: Model) -> None:
    """Note the shapes of values where they follow from those of the inputs; the numbers of weights are not read for it."""
    from onnx_ir.passes.common import ShapeInferencePass

    ShapeInferencePass()(model)


def _alone(graph: Graph, choice: Node) -> list[Node]:
    """What computes each token by itself and is read by nothing but the choice, in the order of the graph."""
    found, before = {choice}, list(graph)
    for node in reversed(before[: before.index(choice)]):
        uses = [use for value in node.outputs for use in value.uses()]
        is_read = any(value.is_graph_output() for value in node.outputs)
        if uses and not is_read and _places(node) and all(use.node in found and use.idx in _places(use.node) for use in uses):
            found.add(node)
    return [node for node in before if node in found and node is not choice]


def _places(node: Node) -> tuple[int, ...]:
    """Which inputs of a node are sequences, a token of which gives one token of its output; none of a node that does more."""
    if _is_choice(node):
        return (0,)
    given, known = node.inputs, _facts(node)
    if node.domain or len(node.outputs) != 1 or not _is_sequence(node.outputs[0]):
        return ()
    if node.op_type in OF_TWO:
        places = tuple(place for place, value in enumerate(given) if value.const_value is None)
        others_are_one = all(len(value.const_value.shape) <= 1 for value in given if value.const_value is not None)
        return places if others_are_one and all(_is_as_long(given[place], node.outputs[0]) for place in places) else ()
    is_normed = node.op_type in NORMS and known.get("axis", -1) in (-1, AXES - 1)
    is_attended = node.op_type == "Attention" and not any(value is not None for value in given[3:]) and not known.get("is_causal")
    is_alone = matrix_of(node) is not None or is_normed or is_attended or node.op_type in ONE_BY_ONE
    return (0,) if is_alone and _is_as_long(given[0], node.outputs[0]) else ()


def _move(graph: Graph, choice: Node, alone: list[Node]) -> None:
    import numpy

    place, rows = choice.inputs[1], dict[Value, Value]()
    for node in alone:
        for index in _places(node):
            value = node.inputs[index]
            if value.producer() not in alone:
                node.replace_input_with(index, rows.setdefault(value, _row(graph, node, value, place)))
    for node in alone:
        _set_short(node.outputs[0])
    if choice.inputs[0].producer() in alone:
        choice.replace_input_with(1, constant_in(graph, "row", numpy.array(0)))


def _row(graph: Graph, before: Node, value: Value, place: Value) -> Value:
    """The token of a place, [batch 1 width]."""
    import numpy
    import onnx_ir as ir

    number = int(place.const_value.numpy())
    made = ir.node("Gather", [value, constant_in(graph, "rows", numpy.array([number]))], attributes={"axis": TOKENS})
    graph.insert_before(before, [made])
    made.outputs[0].shape, made.outputs[0].type = value.shape, value.type
    _set_short(made.outputs[0])
    return made.outputs[0]


def _is_sequence(value: Value) -> bool:
    """Whether it is known to have the axes [batch tokens width]."""
    return value.shape is not None and len(value.shape) == AXES


def _is_as_long(value: Value, other: Value) -> bool:
    """Whether two sequences are known to have as many tokens."""
    if not (_is_sequence(value) and _is_sequence(other)):
        return False
    length, known = value.shape[TOKENS], other.shape[TOKENS]
    is_known = isinstance(length, int) or getattr(length, "value", None) is not None
    return is_known and length == known


def _set_short(value: Value) -> None:
    import onnx_ir as ir

    value.shape = ir.Shape([1 if axis == TOKENS else size for axis, size in enumerate(value.shape)])


def _facts(node: Node) -> dict[str, Any]:
    return {name: entry.value for name, entry in node.attributes.items()}
