"""Few queries that attend to a long memory: queries go to where the memory is, in place of the memory to where they are.

A score is (x K)·(m W), with queries x K and one of the memory's vectors m: the same number is ((x K) W')·m, with W' being W turned. The
first way multiplies all of the memory by W, the second each head's queries by its part of W', and those by the memory as it is. So the
heads become further queries of one head that is as wide as the memory. What they find there, a mean of its vectors m, is multiplied by
the matrix of values behind that, because a mean of products is the product of the mean. A bias of keys adds as much to all scores of
a query, which softmax does not see; one of values is added at the end, because the parts of a mean sum to one.

With q queries, h heads of d numbers, and a memory of m vectors, w wide, keys and their scores take m·w·h·d + q·m·h·d products in the first
way, q·h·d·w + q·h·m·w in the second; values the same. For the Q-Former of BLIP-2 (32 queries, 12 heads of 64, 257 vectors) that is 0.6 of
it beside an eye that is 768 or 1,408 wide. Both are products of float32, on any processor. In 8 bits the memory's keys and values are
cheaper as they were: what is computed cannot be brought to 8 bits as well as weights are, so those graphs stay.

This is done where a graph is tuned for a machine and not where it is traced: an export keeps the matrices as the module has them, so that
they can be brought to 8 bits.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from modelgraft_plugins.onnx.constants import drop_unused
from modelgraft_plugins.onnx.widening import constant_in, matrix_of

LEAST_GAIN = 1.25  # how many times fewer products it must take: those of a head are narrow, and none of their matrices is packed
TURN = (0, 2, 1, 3)  # [batch tokens heads d] <-> [batch heads tokens d]
NAME = b"q_num_heads"  # what a file has of such an operator: those of decoders are told of heads by another name

# Graph, Node and Value of onnx_ir, which is not among what mypy sees.
Graph = Any
Node = Any
Value = Any


class Product(NamedTuple):
    """What a memory is brought to keys or values by.

    memory  [batch m w]
    weight  the constant matrix, [w h*d]
    bias    [h*d], where there is one
    """

    memory: Value
    weight: Value
    bias: Value | None


class Attending(NamedTuple):
    """An operator that attends without a mask, heads side by side: q queries to m vectors, w wide, with h heads of d numbers."""

    node: Node
    keys: Product
    values: Product
    q: int
    m: int
    w: int
    h: int
    d: int

    @property
    def gain(self) -> float:
        """How many times fewer products of two numbers it takes if the heads become queries."""
        wide = self.h * self.d
        return (self.m * self.w * wide + self.q * self.m * wide) / (self.q * wide * self.w + self.q * self.h * self.m * self.w)


def laid_out(path: Path) -> bytes | None:
    """A graph that is written, with its heads as queries wherever that takes fewer products; its weights are those beside `path`.

    None where nothing is changed, or the graph cannot be read here.
    """
    if NAME not in path.read_bytes():
        return None
    try:
        from modelgraft_plugins.light_ir import ir  # not at the top: a start needs none
    except ImportError:
        return None
    model = ir.load(path)
    changed: bytes | None = ir.serde.serialize_model(model).SerializeToString() if lay_out(model.graph) else None
    return changed


def lay_out(graph: Graph) -> int:
    """Make queries of the heads of each operator that takes fewer products by it; gives how many there were."""
    found = [one for node in graph if (one := _attending(node)) is not None and one.gain >= LEAST_GAIN]
    for one in found:
        _change(graph, one)
    for node in reversed(list(graph)) if found else ():
        if all(not value.uses() and not value.is_graph_output() for value in node.outputs):
            graph.remove(node, safe=True)
    drop_unused(graph)
    return len(found)


def _attending(node: Node) -> Attending | None:
    if node.op_type != "Attention" or node.domain or any(value is not None for value in node.inputs[3:]) or len(node.outputs) != 1:
        return None
    facts = {name: entry.value for name, entry in node.attributes.items()}
    h, queries = facts.get("q_num_heads", 0), node.inputs[0].shape
    keys, values = (_product(value) for value in node.inputs[1:3])
    if not h or facts.get("kv_num_heads") != h or facts.get("is_causal") or facts.get("softcap") or keys is None or values is None:
        return None
    own, memory = _sizes(queries), _sizes(keys.memory.shape)
    if own is None or memory is None or _sizes(values.memory.shape) != memory:
        return None
    (q, wide), (m, w) = own, memory
    fits = all(tuple(one.weight.shape) == (w, wide) for one in (keys, values))
    return Attending(node, keys, values, q, m, w, h, wide // h) if fits else None


def _sizes(shape: Any) -> tuple[int, int] | None:
    """The last two of three axes, where they are known."""
    known = shape is not None and len(shape) == len(TURN) - 1 and isinstance(shape[1], int) and isinstance(shape[2], int)
    return (shape[1], shape[2]) if known else None


def _product(value: Value) -> Product | None:
    """The product by a constant matrix that a value is, with a bias or without, if nothing else reads it."""
    node, bias = _alone(value), None
    if node is not None and node.op_type == "Add" and not node.domain:
        bias = next((one for one in node.inputs if one.const_value is not None and len(one.const_value.shape) == 1), None)
        node = next((_alone(one) for one in node.inputs if one is not bias), None) if bias is not None else None
    if node is None or (weight := matrix_of(node)) is None:
        return None
    return Product(node.inputs[0], weight, bias)


def _alone(value: Value) -> Node | None:
    """What gives a value that is read once."""
    return value.producer() if len(list(value.uses())) == 1 and not value.is_graph_output() else None


def _change(graph: Graph, one: Attending) -> None:
    """Put the nodes of one head in the place of one of several: onnxruntime works out what is made of constants alone.

    Its scores are scaled by what one of the heads would scale them by.
    """
    import numpy
    import onnx_ir as ir

    made: list[Node] = []

    def put(operator: str, *given: Value, **facts: Any) -> Value:
        made.append(ir.node(operator, list(given), attributes=facts))
        return made[-1].outputs[0]

    def shape(*sizes: int) -> Value:
        return constant_in(graph, "sizes", numpy.array(sizes, numpy.int64))

    scale = one.node.attributes["scale"].value if "scale" in one.node.attributes else one.d**-0.5
    split = put("Transpose", put("Reshape", one.node.inputs[0], shape(0, one.q, one.h, one.d)), perm=TURN)  # [batch h q d]
    queries = put("Reshape", put("MatMul", split, _by_heads(put, shape, one, one.keys, "h d w")), shape(0, one.h * one.q, one.w))
    facts = {"q_num_heads": 1, "kv_num_heads": 1, "scale": scale}
    means = put("Attention", queries, one.keys.memory, one.values.memory, **facts)  # [batch h*q w]
    found = put("MatMul", put("Reshape", means, shape(0, one.h, one.q, one.w)), _by_heads(put, shape, one, one.values, "h w d"))
    flat = put("Reshape", put("Transpose", found, perm=TURN), shape(0, one.q, one.h * one.d))
    flat = put("Add", flat, one.values.bias) if one.values.bias is not None else flat
    graph.insert_before(one.node, made)
    old = one.node.outputs[0]
    flat.shape, flat.type = old.shape, old.type
    old.replace_all_uses_with(flat, replace_graph_outputs=True)
    graph.remove(one.node, safe=True)


def _by_heads(put: Callable[..., Value], shape: Callable[..., Value], one: Attending, product: Product, axes: str) -> Value:
    """A matrix as one for each head, [h d w] or [h w d]."""
    split = put("Reshape", product.weight, shape(one.w, one.h, one.d))
    return put("Transpose", split, perm=["whd".index(axis) for axis in axes.split()])
