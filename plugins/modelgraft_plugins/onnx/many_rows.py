"""Blocks of 8 bits when many rows are read at once: brought to float32 in each run, and multiplied as such.

MatMulNBits takes as long for each row. On a processor that has no products of 8 bits (AVX2 without VNNI) a matrix of float32 is multiplied
faster from some dozens of rows on, even where it has to be made first. So a graph gets another one beside it for prompts, by the same
numbers: its matrices name the bytes that the first has written, and are read where they are mapped. What is made of a matrix is let go of
as soon as it was multiplied. Blocks are brought to float32 as rows of a matrix with a scale each, of which onnxruntime makes plain loops;
with blocks along an axis it looks for the scale of each number (576 x 1,536 on Zen 3: 1.3 ms in place of 0.2).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelgraft_plugins.light_ir import ir
from modelgraft_plugins.onnx.constants import drop_unused
from modelgraft_plugins.onnx.kept_blocks import MIDDLE
from modelgraft_plugins.onnx.reducing import CONTRIB, put

BITS = 8  # of 4 bits float32 is no faster than blocks, for as many rows as anybody reads at once
PICKING = frozenset({"GatherElements", "Gather", "GatherND"})  # behind these a head reads a row or two of many

# Graph, Node and Value of onnx_ir, which is not among what mypy sees.
Graph = Any
Node = Any
Value = Any


def write(path: Path, target: Path) -> bool:
    """Write the graph for many rows of one that is written, in its folder; gives whether anything in it is held in 8 bits."""
    model = ir.load(path)
    graph, zeros = model.graph, dict[int, Value]()
    fitting = [node for node in graph if _fits(node)]
    for node in fitting:
        put(graph, node, _made(graph, node, zeros))
    if fitting:
        drop_unused(graph)
        ir.save(model, target)
    return bool(fitting)


def _fits(node: Node) -> bool:
    """Whether a node multiplies by whole blocks of 8 bits around the middle, and all rows that there are."""
    if node.op_type != "MatMulNBits" or len(node.inputs) != 3:
        return False
    maker, facts = node.inputs[0].producer(), {name: node.attributes[name].value for name in ("K", "bits", "block_size")}
    return facts["bits"] == BITS and facts["K"] % facts["block_size"] == 0 and (maker is None or maker.op_type not in PICKING)


def _made(graph: Graph, node: Node, zeros: dict[int, Value]) -> list[Node]:
    """The nodes in the place of one. zeros: what stands for zero in so many blocks, by their number."""
    x, packed, scales = node.inputs
    columns, count, size = packed.const_value.shape
    blocks = columns * count
    if blocks not in zeros:
        zeros[blocks] = _constant(graph, _middles(blocks, name=f"middles.{blocks}"))
    flat = _constant(graph, _reshaped(packed.const_value, (blocks, size), name=f"{packed.name}.blocks"))
    each = _constant(graph, _reshaped(scales.const_value, (blocks,), name=f"{scales.name}.blocks"))
    shape = _constant(graph, _shape(columns, count * size, name=f"shape.{node.name}"))
    numbers = ir.node("DequantizeLinear", [flat, each, zeros[blocks]], attributes={"axis": 0}, name=f"{node.name}.plain")
    matrix = ir.node("Reshape", [numbers.outputs[0], shape], name=f"{node.name}.matrix")
    product = ir.node("FusedMatMul", [x, matrix.outputs[0]], attributes={"transB": 1}, domain=CONTRIB, name=node.name)
    return [numbers, matrix, product]


def _reshaped(tensor: Any, shape: tuple[int, ...], *, name: str) -> Any:
    """The same bytes in another shape: of a file where they lie in one."""
    if isinstance(tensor, ir.ExternalTensor):
        place = (tensor.location, tensor.offset, tensor.length)
        return ir.ExternalTensor(*place, tensor.dtype, shape=ir.Shape(shape), name=name, base_dir=tensor.base_dir)
    return ir.tensor(tensor.numpy().reshape(shape), name=name)


def _middles(blocks: int, *, name: str) -> Any:
    import numpy

    return ir.tensor(numpy.full(blocks, MIDDLE[BITS], numpy.uint8), name=name)


def _shape(*sizes: int, name: str) -> Any:
    import numpy

    return ir.tensor(numpy.array(sizes, numpy.int64), name=name)


def _constant(graph: Graph, tensor: Any) -> Value:
    value = ir.Value(name=tensor.name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value
