"""Blocks of 8 bits when many rows are read at once: brought to float32 in each run, and multiplied as such.

MatMulNBits takes as long for each row. On a processor that has no products of 8 bits (AVX2 without VNNI) a matrix of float32 is multiplied
faster from some dozens of rows on, even where it has to be made first. So a graph gets another one beside it for prompts, by the same
numbers: its matrices name the bytes that the first has written, and are read where they are mapped. What is made of a matrix is let go of
as soon as it was multiplied.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx_ir as ir

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
    graph, zeros = model.graph, dict[tuple[int, ...], Value]()
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


def _made(graph: Graph, node: Node, zeros: dict[tuple[int, ...], Value]) -> list[Node]:
    """The nodes in the place of one. zeros: what stands for zero in matrices of a shape, by the shape."""
    x, packed, scales = node.inputs
    columns, count, size = shape = tuple(packed.const_value.shape)
    if shape not in zeros:
        zeros[shape] = _constant(graph, _middles(columns, count, name=f"middles.{columns}.{count}.{size}"))
    flat = _constant(graph, _reshaped(packed.const_value, (columns, count * size), name=f"{packed.name}.flat"))
    numbers = ir.node(
        "DequantizeLinear", [flat, scales, zeros[shape]], attributes={"axis": 1, "block_size": size}, name=f"{node.name}.plain"
    )
    product = ir.node("FusedMatMul", [x, numbers.outputs[0]], attributes={"transB": 1}, domain=CONTRIB, name=node.name)
    return [numbers, product]


def _reshaped(tensor: Any, shape: tuple[int, ...], *, name: str) -> Any:
    """The same bytes in another shape: of a file where they lie in one."""
    if isinstance(tensor, ir.ExternalTensor):
        place = (tensor.location, tensor.offset, tensor.length)
        return ir.ExternalTensor(*place, tensor.dtype, shape=ir.Shape(shape), name=name, base_dir=tensor.base_dir)
    return ir.tensor(tensor.numpy().reshape(shape), name=name)


def _middles(columns: int, count: int, *, name: str) -> Any:
    import numpy

    return ir.tensor(numpy.full((columns, count), MIDDLE[BITS], numpy.uint8), name=name)


def _constant(graph: Graph, tensor: Any) -> Value:
    value = ir.Value(name=tensor.name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value
