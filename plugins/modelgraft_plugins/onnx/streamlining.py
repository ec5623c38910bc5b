"""What a traced graph does between its large products, in fewer steps: a token's step of a decoder has hundreds of them.

Heads are taken as they lie side by side: the exporter turns [batch tokens heads*d] into [batch heads tokens d] and back
around each operator that would have taken it flat. And the matrices of queries, keys and values are one: a short product of
one row does not reach the speed of the memory (768 x 256: 17 GB/s, all three in one: 21). Where nothing is done to the three before
the operator of a decoder attends, it takes them as one. A sum and its RMS norm are one operator too.
"""

from __future__ import annotations

from typing import Any

from modelgraft_plugins.onnx.widening import constant_in, matrix_of

TURN = (0, 2, 1, 3)  # [batch tokens heads d] <-> [batch heads tokens d]
HEADS = {"Attention": ("q_num_heads", "kv_num_heads"), "RotaryEmbedding": ("num_heads",)}  # by operator, how it is told of them
SHORT_BYTES = 3 << 20  # matrices below this are joined: longer ones are as fast alone (measured with 768 wide models)

# Graph, Node and Value of onnx_ir, which is not among what mypy sees.
Graph = Any
Node = Any
Value = Any


def streamline(graph: Graph) -> None:
    """Take heads flat, drop shapes that are undone, and join the matrices of a decoder that read the same."""
    for node in list(graph):
        if node.op_type in HEADS and not node.domain:
            _flatten(graph, node)
    for node in list(graph):
        if node.op_type == "Reshape":
            _drop_undone(node)
    if decoding := [node for node in graph if node.op_type == "GroupQueryAttention"]:
        _fuse(graph, decoding)
    for node in reversed(list(graph)):
        if all(not value.uses() and not value.is_graph_output() for value in node.outputs):
            graph.remove(node, safe=True)


def _fuse(graph: Graph, decoding: list[Node]) -> None:
    """What a decoder has operators for, around those that attend in it."""
    _join(graph)
    for node in decoding:
        _pack(node)
    for node in list(graph):
        if node.op_type == "RMSNormalization" and not node.domain:
            _norm_sum(graph, node)


def _flatten(graph: Graph, node: Node) -> None:
    """Give an operator [batch tokens heads*d] where it has that turned, if what it gives is turned back."""
    import onnx_ir as ir

    names = HEADS[node.op_type]
    turned = node.inputs[:3] if node.op_type == "Attention" else node.inputs[:1]
    flat, end = [_before(value) for value in turned], _after(node.outputs[0])
    if end is None or any(value is None for value in flat):
        return
    heads = {name: value.shape[1] for name, value in zip(names, turned, strict=False)}
    attributes = {**{name: entry.value for name, entry in node.attributes.items()}, **heads}
    made = ir.node(node.op_type, [*flat, *node.inputs[len(flat) :]], attributes=attributes)
    _stand_in(made.outputs[0], end)
    graph.insert_after(node, made)


def _before(value: Value) -> Value | None:
    """The [batch tokens heads*d] that a value [batch heads tokens d] was turned from; None when it was not."""
    turn = value.producer()
    split = turn.inputs[0].producer() if turn is not None and _turns(turn) else None
    flat = split.inputs[0] if split is not None and split.op_type == "Reshape" else None
    if flat is None or flat.shape is None or len(flat.shape) != len(TURN) - 1:
        return None
    heads, width = value.shape[1], value.shape[3]
    return flat if isinstance(heads, int) and isinstance(width, int) and flat.shape[2] == heads * width else None


def _after(value: Value) -> Value | None:
    """The [batch tokens heads*d] that a value is turned into, where that is all that it is read for."""
    has_turned = False
    while len(uses := list(value.uses())) == 1 and not value.is_graph_output():
        reader = uses[0].node
        if _turns(reader) and not has_turned:
            has_turned = True
        elif reader.op_type != "Reshape":
            return None
        value = reader.outputs[0]
        if value.shape is not None and len(value.shape) == len(TURN) - 1:
            return value if has_turned else None
    return None


def _turns(node: Node) -> bool:
    return node.op_type == "Transpose" and tuple(node.attributes["perm"].value) == TURN


def _drop_undone(node: Node) -> None:
    """Read what was there before two reshapes of which the second undoes the first."""
    before, end = node.inputs[0].producer(), node.outputs[0]
    if before is not None and before.op_type == "Reshape" and not end.is_graph_output():
        start = before.inputs[0]
        if start.shape is not None and end.shape is not None and start.shape == end.shape:
            end.replace_all_uses_with(start)


def _join(graph: Graph) -> None:
    """Multiply by the short matrices that read the same value at once, and split the product."""
    by_input: dict[int, list[Node]] = {}
    for node in graph:
        weight = matrix_of(node)
        if weight is not None and weight.const_value.nbytes < SHORT_BYTES:
            by_input.setdefault(id(node.inputs[0]), []).append(node)
    for nodes in by_input.values():
        if len(nodes) > 1 and not any(node.outputs[0].is_graph_output() for node in nodes):
            _join_all(graph, nodes)


def _join_all(graph: Graph, nodes: list[Node]) -> None:
    import numpy
    import onnx_ir as ir

    weights = [node.inputs[1] for node in nodes]
    sizes = [weight.const_value.shape[1] for weight in weights]
    joined = numpy.concatenate([weight.const_value.numpy() for weight in weights], axis=1)
    name = f"{weights[0].name}.joined"
    constants = [constant_in(graph, name, joined), constant_in(graph, f"{name}.sizes", numpy.array(sizes, numpy.int64))]
    product = ir.node("MatMul", [nodes[0].inputs[0], constants[0]])
    split = ir.node("Split", [product.outputs[0], constants[1]], attributes={"axis": -1}, num_outputs=len(nodes))
    graph.insert_before(nodes[0], [product, split])
    first = nodes[0].outputs[0]
    product.outputs[0].dtype = first.dtype
    product.outputs[0].shape = ir.Shape([*first.shape[:-1], sum(sizes)]) if first.shape is not None else None
    for part, node, weight in zip(split.outputs, nodes, weights, strict=True):
        _stand_in(part, node.outputs[0])
        graph.remove(node, safe=True)
        if not weight.uses():
            graph.initializers.pop(weight.name, None)
    _join_biases(graph, split)


def _join_biases(graph: Graph, split: Node) -> None:
    """Add the biases of all parts of a product before it is split, where each part has one."""
    import numpy
    import onnx_ir as ir

    sums = [_sum_with_bias(part) for part in split.outputs]
    biases = [bias for found in sums if found is not None for bias in found[1:]]
    if len(biases) < len(sums):
        return
    product = split.inputs[0]
    joined = constant_in(graph, f"{biases[0].name}.joined", numpy.concatenate([bias.const_value.numpy() for bias in biases]))
    made = ir.node("Add", [product, joined])
    made.outputs[0].shape, made.outputs[0].type = product.shape, product.type
    graph.insert_before(split, made)
    split.replace_input_with(0, made.outputs[0])
    for part, found in zip(split.outputs, sums, strict=True):
        if found is not None:
            _stand_in(part, found[0].outputs[0])
            graph.remove(found[0], safe=True)
    for bias in biases:
        if not bias.uses():
            graph.initializers.pop(bias.name, None)


def _sum_with_bias(part: Value) -> tuple[Node, Value] | None:
    """The only reader of a value, where it adds a constant row as long as the value is wide, and that row."""
    uses = list(part.uses())
    if len(uses) != 1 or uses[0].node.op_type != "Add" or uses[0].node.domain or uses[0].node.outputs[0].is_graph_output():
        return None
    adding, width = uses[0].node, part.shape[-1] if part.shape is not None else None
    other = adding.inputs[1 - uses[0].idx]
    is_row = other.const_value is not None and tuple(other.const_value.shape) == (width,)
    return (adding, other) if is_row else None


def _pack(attention: Node) -> None:
    """Let the operator take queries, keys and values as they lie side by side, where they are the three parts of one value."""
    three = list(attention.inputs[:3])
    split = three[0].producer()
    if split is None or split.op_type != "Split" or len(split.outputs) != len(three):
        return
    if all(mine is part and len(list(part.uses())) == 1 for mine, part in zip(three, split.outputs, strict=True)):
        attention.replace_input_with(0, split.inputs[0])
        attention.replace_input_with(1, None)
        attention.replace_input_with(2, None)


def _norm_sum(graph: Graph, norm: Node) -> None:
    """One operator for a sum of two like values and its RMS norm, over the last of three axes."""
    import onnx_ir as ir

    total, weight = norm.inputs[:2]
    adding = total.producer()
    if adding is None or adding.op_type != "Add" or adding.domain or norm.outputs[0].is_graph_output() or total.is_graph_output():
        return
    shapes = [value.shape for value in (*adding.inputs, total)]
    is_like = all(shape is not None and len(shape) == len(TURN) - 1 and shape == shapes[0] for shape in shapes)
    axis = norm.attributes["axis"].value if "axis" in norm.attributes else -1
    if not is_like or weight.const_value is None or len(weight.const_value.shape) != 1 or axis not in {-1, len(TURN) - 2}:
        return
    epsilon = norm.attributes["epsilon"].value if "epsilon" in norm.attributes else 1e-5
    name = "SkipSimplifiedLayerNormalization"
    made = ir.node(name, [*adding.inputs, weight], attributes={"epsilon": epsilon}, domain="com.microsoft", num_outputs=4)
    made.outputs[1].name = made.outputs[2].name = ""  # nobody reads its means and deviations
    graph.insert_after(adding, made)
    _stand_in(made.outputs[0], norm.outputs[0])
    _stand_in(made.outputs[3], total)


def _stand_in(value: Value, old: Value) -> None:
    """Let one value be read in place of another of the same shape and type."""
    value.shape, value.type = old.shape, old.type
    old.replace_all_uses_with(value)
