"""Matrices of a graph as the checkpoint stores them, [out in]: written as they lie there, and turned by onnxruntime as it packs them.

A linear layer of torch multiplies by what it stores turned, MatMul by what it is given. To turn a matrix before it is written takes as long
as to write it (Zen 3, the 340 MB of ViT-B/16: 0.17 and 0.19 s of a thread), and what is widened besides is gone through once more. A
session packs a stored one in the same time as one that was turned, products take as long, and give the same bits. FusedMatMul of
onnxruntime takes it so, in float32 alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from modelgraft_plugins.onnx.constants import drop_unused, lazy_in, turned_in
from modelgraft_plugins.onnx.kept_blocks import LYING
from modelgraft_plugins.onnx.widening import WIDENED, WIDER, matrix_of

CONTRIB = "com.microsoft"

# Graph, Node and Value of onnx_ir, which is not among what mypy sees; arrays of numpy.
Graph = Any
Node = Any
Value = Any
Array = Any


def store_as_they_lie(graph: Graph) -> int:
    """Let products of a float32 graph take matrices as the checkpoint stores them, where it notes that; gives how many do."""
    found = [(node, read) for node in list(graph) if (weight := matrix_of(node)) is not None and (read := _lying(weight)) is not None]
    for node, read in found:
        rows, columns = node.inputs[1].const_value.shape
        name = f"{node.inputs[1].name}.stored"
        if name not in graph.initializers:
            lazy_in(graph, name, read, [columns, rows], node.inputs[1].const_value.dtype)
        _exchange(graph, node, "FusedMatMul", graph.initializers[name], domain=CONTRIB, transB=1)
    drop_unused(graph)
    return len(found)


def turn_back(graph: Graph) -> int:
    """Bring products of matrices as they were stored back to MatMul, by matrices that are turned as they are read; gives how many."""
    found = [node for node in list(graph) if _is_stored(node)]
    for node in found:
        _exchange(graph, node, "MatMul", turned_in(graph, node.inputs[1], (1, 0)))
    drop_unused(graph)
    return len(found)


def _is_stored(node: Node) -> bool:
    weight = node.inputs[1] if node.op_type == "FusedMatMul" and node.domain == CONTRIB else None
    return weight is not None and weight.const_value is not None and len(weight.const_value.shape) == 2


def _lying(weight: Value) -> Callable[[], Array] | None:
    """What gives a matrix as it is stored, float32[out in], with the zeros by which it was widened; None where nobody has noted that."""
    if LYING in weight.meta:
        return partial(_side_by_side, weight.meta[LYING])
    if WIDENED not in weight.meta:
        return None
    before, axis = weight.meta[WIDENED]
    inner = _lying(before)
    return None if inner is None else partial(_wider, inner, 1 - axis)


def _side_by_side(tensors: Any) -> Array:
    import torch

    whole = torch.cat(list(tensors)) if len(tensors) > 1 else tensors[0]
    return whole.detach().to(torch.float32).contiguous().numpy()


def _wider(read: Callable[[], Array], axis: int) -> Array:
    import numpy

    return numpy.pad(read(), [(0, WIDER if index == axis else 0) for index in range(2)])


def _exchange(graph: Graph, node: Node, kind: str, weight: Value, *, domain: str = "", **facts: Any) -> None:
    """Put another product by another matrix in the place of one, under its name."""
    import onnx_ir as ir

    made, old = ir.node(kind, [node.inputs[0], weight], attributes=facts, domain=domain, name=node.name), node.outputs[0]
    new = made.outputs[0]
    new.shape, new.type, new.name = old.shape, old.type, old.name
    graph.insert_before(node, [made])
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(node, safe=True)
