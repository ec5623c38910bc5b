"""The weights of a traced graph stay where the module has them until they are written: nothing copies them on the way there.

While a graph is simplified its weights have no numbers. So none is compared with another (layers that are drawn at random have equal
ones, and those that a copy of a layer will stand for have not), and none is transposed in memory. What the graph transposes is
transposed afterwards, one by one, as it is written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

LYING = "lying"  # under which a matrix of a graph notes the tensors, [out in] each, that lie side by side in it: see `graph_writing`
STORED = "stored"  # under which one notes such tensors that it is turned of, but for zeros behind them: see `turning`
SMALL = 4096  # numbers; constants up to here may be worked out while a graph is simplified, unless they are a layer's own

# Graph, Value and Tensor of onnx_ir, which is not among what mypy sees.
Graph = Any
Value = Any
Tensor = Any


@contextlib.contextmanager
def unread(graph: Graph, *, own: Sequence[str]) -> Iterator[None]:
    """Let large constants have no numbers while the block runs, and those whose names begin with one of `own`."""
    hidden = {
        value: value.const_value
        for name, value in graph.initializers.items()
        if value.const_value is not None and (value.const_value.size > SMALL or name.startswith(tuple(own)))
    }
    for value, tensor in hidden.items():
        value.shape, value.type = tensor.shape, _type_of(tensor)
        value.const_value = None
    try:
        yield
    finally:
        for value, tensor in hidden.items():
            value.const_value = tensor


def turn(graph: Graph) -> None:
    """Put constants that lie as the graph transposes them in the place of its Transpose nodes."""
    for node in list(graph):
        value = node.inputs[0] if node.op_type == "Transpose" and not node.domain else None
        if value is None or value.const_value is None or node.outputs[0].is_graph_output():
            continue
        axes = reversed(range(len(value.const_value.shape)))
        perm = tuple(node.attributes["perm"].value) if "perm" in node.attributes else tuple(axes)
        node.outputs[0].replace_all_uses_with(turned_in(graph, value, perm))
        graph.remove(node, safe=True)


def turned_in(graph: Graph, value: Value, perm: Sequence[int]) -> Value:
    """A constant of a graph as it is transposed, which is done when it is written."""
    name, before = f"{value.name}.turned{''.join(map(str, perm))}", value.const_value
    if name not in graph.initializers:
        made = lazy_in(graph, name, partial(_turned, before, perm), [before.shape[axis] for axis in perm], before.dtype)
        raw = getattr(before, "raw", None)
        if tuple(perm) == (1, 0) and hasattr(raw, "detach"):
            made.meta[STORED] = [raw]
    return graph.initializers[name]


def lazy_in(graph: Graph, name: str, make: Callable[[], Any], shape: Sequence[int], dtype: Any) -> Value:
    """Add a constant to a graph that is made, as an array of numpy or a tensor of torch, each time that it is read."""
    import onnx_ir as ir

    tensor = ir.LazyTensor(lambda: ir.tensor(make(), name=name), dtype=dtype, shape=ir.Shape(shape), name=name)
    value = ir.Value(name=name, shape=ir.Shape(shape), type=_type_of(tensor), const_value=tensor)
    graph.register_initializer(value)
    return value


def drop_unused(graph: Graph) -> None:
    """Take out the constants that nothing reads."""
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]


def _type_of(tensor: Tensor) -> Any:
    import onnx_ir as ir

    return ir.TensorType(tensor.dtype)


def _turned(tensor: Tensor, perm: Sequence[int]) -> Any:
    """By torch where it is one of its tensors, which it turns four times as fast as numpy; otherwise as a view."""
    import torch

    raw = getattr(tensor, "raw", None)
    return raw.detach().permute(*perm).contiguous() if isinstance(raw, torch.Tensor) else tensor.numpy().transpose(perm)
