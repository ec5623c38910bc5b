"""A decoder's graph while it is put together: nodes of onnx_ir, and matrices that are read when they are written to disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor

CONTRIB = "com.microsoft"  # the domain of onnxruntime's own operators
OPSETS = {"": 23, CONTRIB: 1}
KINDS: Mapping[torch.dtype, Any] = {
    torch.float32: ir.DataType.FLOAT,
    torch.float16: ir.DataType.FLOAT16,
    torch.int64: ir.DataType.INT64,
    torch.int32: ir.DataType.INT32,
}

Value = Any  # of onnx_ir, which is not among what mypy sees


class GraphWriting:
    """Each method adds a node, and gives what it makes."""

    def __init__(self, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> None:
        """tensors: those of the checkpoint by their names;  dtype: what the graph computes in."""
        self.tensors, self.dtype = tensors, dtype
        self.nodes: list[Any] = []
        self.inputs: dict[str, Value] = {}
        self.constants: dict[str, Value] = {}

    def takes(self, name: str, dtype: torch.dtype, shape: Sequence[int | str]) -> Value:
        """An input of the graph."""
        self.inputs[name] = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(KINDS[dtype]))
        return self.inputs[name]

    def node(self, kind: str, inputs: Sequence[Value | None], *, domain: str = "", name: str = "", **facts: Any) -> Value:
        """A node with one output."""
        return self.several(kind, inputs, 1, domain=domain, name=name, **facts)[0]

    def several(
        self, kind: str, inputs: Sequence[Value | None], count: int, *, domain: str = "", name: str = "", **facts: Any
    ) -> tuple[Value, ...]:
        """A node with so many outputs."""
        name = name or f"{kind}.{len(self.nodes)}"
        made = ir.node(kind, list(inputs), attributes=facts, domain=domain, num_outputs=count, name=name)
        self.nodes.append(made)
        return tuple(made.outputs)

    def constant(self, name: str, shape: Sequence[int], make: Callable[[], Tensor], *, dtype: torch.dtype | None = None) -> Value:
        """A tensor of the graph that is made when it is written, and let go of again."""
        if name not in self.constants:
            kind, size = KINDS[dtype or self.dtype], ir.Shape(shape)
            tensor = ir.LazyTensor(lambda: ir.Tensor(make().detach().numpy(), name=name), dtype=kind, shape=size, name=name)
            self.constants[name] = ir.Value(name=name, shape=size, type=ir.TensorType(kind), const_value=tensor)
        return self.constants[name]

    def numbers(self, *values: int) -> Value:
        """Whole numbers, int64[n]."""
        return self.constant(f"numbers.{'.'.join(map(str, values))}", (len(values),), lambda: torch.tensor(values), dtype=torch.int64)

    def vector(self, *names: str) -> Value:
        """Vectors of the checkpoint, one behind the other."""
        size = sum(len(self.tensors[name]) for name in names)
        return self.constant(_joined(names), (size,), lambda: torch.cat([self.tensors[name] for name in names]).to(self.dtype))

    def linear(self, x: Value, *names: str) -> Value:
        """What linear layers make of x, side by side: by matrices of the checkpoint, [out in] each, and biases where it holds them."""
        weights, biases = [f"{name}.weight" for name in names], [f"{name}.bias" for name in names]
        shape = (self.tensors[weights[0]].shape[1], sum(len(self.tensors[name]) for name in weights))

        def turned() -> Tensor:
            joined = torch.cat([self.tensors[name] for name in weights]) if len(weights) > 1 else self.tensors[weights[0]]
            return joined.T.to(self.dtype, memory_format=torch.contiguous_format).contiguous()

        product = self.node("MatMul", [x, self.constant(_joined(weights), shape, turned)], name=_joined(names))
        return self.node("Add", [product, self.vector(*biases)]) if biases[0] in self.tensors else product

    def heads(self, x: Value, heads: int, width: int) -> Value:
        """[batch tokens heads*width] -> [batch tokens heads width]."""
        return self.node("Reshape", [x, self.numbers(0, 0, heads, width)])

    def model(self, outputs: Mapping[str, tuple[Value, Sequence[int | str]]]) -> Any:
        """The whole, as an onnx_ir.Model, which gives these by their names, with their shapes."""
        for name, (value, shape) in outputs.items():
            value.name, value.shape, value.type = name, ir.Shape(shape), ir.TensorType(KINDS[self.dtype])
        graph = ir.Graph(
            list(self.inputs.values()),
            [value for value, _ in outputs.values()],
            nodes=self.nodes,
            initializers=list(self.constants.values()),
            opset_imports=OPSETS,
            name="decoder",
        )
        return ir.Model(graph, ir_version=10, producer_name="modelgraft")


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]}.joined"
