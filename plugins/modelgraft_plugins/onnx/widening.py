"""Inner widths that are whole memory pages are made a little wider: products over them then run at full speed on a CPU.

A product reads a dozen rows of its left side at once. When a row is a multiple of 4096 bytes long, all of them fall into the
same few lines of the first cache and drive each other out: 197 x 3072 times 3072 x 768 runs at 100 instead of 110 GFLOP/s
(Zen 4, onnxruntime 1.31). Where the width lies between two matrices of a traced graph, as in every feed-forward layer of a
transformer, it is free to choose: columns of zeros in the first and rows of zeros in the second change no result.
"""

from __future__ import annotations

from itertools import chain, count
from typing import Any

from modelgraft_plugins.onnx.constants import LYING, STORED, lazy_in

PAGE = 1024  # float32 numbers in 4096 bytes, the distance at which rows share lines of the first cache (64 sets of 64 bytes)
WIDER = 32  # columns that are added: two cache lines, and a whole block of blockwise weights
# What may stand between the matrices: it takes numbers one by one, and gives a finite one for a finite one.
BETWEEN = frozenset({"Add", "Clip", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "Mul", "Relu", "Sigmoid", "Softplus", "Sub", "Tanh"})

# Graph, Node and Value of onnx_ir, which is not among what mypy sees.
Graph = Any
Node = Any
Value = Any


def widen(graph: Graph) -> int:
    """Make each free inner width that is a multiple of PAGE wider by WIDER; gives how many there were."""
    return sum(_widen_before(graph, node) for node in list(graph) if matrix_of(node) is not None)


def matrix_of(node: Node) -> Value | None:
    """The constant float32 matrix that a node multiplies by on the right."""
    if node.op_type != "MatMul" or node.domain:
        return None
    weight = node.inputs[1]
    is_matrix = weight is not None and weight.const_value is not None and len(weight.const_value.shape) == 2
    return weight if is_matrix and weight.const_value.dtype.name == "FLOAT" else None


def _widen_before(graph: Graph, narrowing: Node) -> bool:
    """Widen what a matrix reads, if all of it comes from other matrices and is read by nothing else."""
    weight = matrix_of(narrowing)
    width = weight.const_value.shape[0] if weight is not None else 0
    between = _between(narrowing.inputs[0]) if width and width % PAGE == 0 else None
    if between is None or not _is_private(between, narrowing):
        return False
    for node in between:
        if matrix_of(node) is not None:
            _pad(graph, node, 1, axis=1)
        else:
            for place, value in enumerate(node.inputs):
                shape = () if value is None or value.const_value is None else tuple(value.const_value.shape)
                if shape and shape[-1] == width:  # others are 1 wide, and stay so
                    _pad(graph, node, place, axis=len(shape) - 1)
        _lengthen(node.outputs[0], width)
    _pad(graph, narrowing, 1, axis=0)
    return True


def _between(value: Value) -> list[Node] | None:
    """The nodes that a value comes from, back to the matrices that give it; None when it comes from anything else."""
    node = value.producer()
    if node is None:
        return None
    if matrix_of(node) is not None:
        return [node]
    if node.op_type not in BETWEEN or node.domain:
        return None
    found = [node]
    for given in node.inputs:
        if given is None or given.const_value is not None:
            continue
        before = _between(given)
        if before is None:
            return None
        found += [other for other in before if other not in found]
    return found


def _is_private(between: list[Node], narrowing: Node) -> bool:
    """Whether nothing else reads what these nodes give."""
    readers = {*between, narrowing}
    outputs = [value for node in between for value in node.outputs]
    return all(not value.is_graph_output() and {use.node for use in value.uses()} <= readers for value in outputs)


def _pad(graph: Graph, node: Node, place: int, *, axis: int) -> None:
    """Give a node a constant that has more zeros at the end of an axis. Others that read the old one keep it."""
    import numpy

    old = node.inputs[place]
    name = f"{old.name}.wider{axis}"
    if name not in graph.initializers:
        shape = old.const_value.shape
        extent = [(0, WIDER if index == axis else 0) for index in range(len(shape))]
        before = old.const_value
        wider = [size + more for size, (_, more) in zip(shape, extent, strict=True)]
        made = lazy_in(graph, name, lambda: numpy.pad(before.numpy(), extent), wider, before.dtype)
        made.meta[STORED] = old.meta.get(STORED) or old.meta.get(LYING, ())
    node.replace_input_with(place, graph.initializers[name])
    if not old.uses() and old.name in graph.initializers:
        del graph.initializers[old.name]


def constant_in(graph: Graph, name: str, array: Any) -> Value:
    """Add a constant to a graph, an array of numpy, and give its value.

    Its name is another where there is one of that name: what it is made of may serve several layers, as biases of zeros do.
    """
    import onnx_ir as ir

    name = next(free for free in chain([name], (f"{name}#{turn}" for turn in count(1))) if free not in graph.initializers)
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def _lengthen(value: Value, width: int) -> None:
    """Correct the recorded shape of a value, whose last axis has become wider."""
    import onnx_ir as ir

    if value.shape is not None and len(value.shape) and value.shape[-1] == width:
        value.shape = ir.Shape([*value.shape[:-1], width + WIDER])
