"""A graph while it is put together: nodes of onnx_ir, and matrices that are read when they are written to disk.

Any plugin may import this module, where it writes a graph: it imports torch and onnx_ir.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from modelgraft.plugin import PublishedBlocks
from modelgraft_plugins.light_ir import ir

CONTRIB = "com.microsoft"  # the domain of onnxruntime's own operators
OPSETS = {"": 23, CONTRIB: 1}
KINDS: Mapping[torch.dtype, Any] = {
    torch.float32: ir.DataType.FLOAT,
    torch.float16: ir.DataType.FLOAT16,
    torch.int64: ir.DataType.INT64,
    torch.int32: ir.DataType.INT32,
}

LYING = "lying"  # under which it notes the tensors, [out in] each, that lie side by side in it
READ = "read"  # under which a graph notes the tensors that it is made of
PUBLISHED = "published"  # under which a matrix of a graph notes what gives its blocks, of each that lies side by side in it

Value = Any  # of onnx_ir, which is not among what mypy sees
Published = Callable[[str, Tensor], PublishedBlocks | None]  # by name and numbers, [out in]


class GraphWriting:
    """Each method adds a node, and gives what it makes."""

    def __init__(self, tensors: Mapping[str, Tensor], dtype: torch.dtype, published: Published | None = None) -> None:
        """What a graph is made of.

        tensors    those of the checkpoint by their names;  dtype  what the graph computes in
        published  how the file holds a matrix of the checkpoint in blocks, where it does: see `Tracer.published`; None: it is not asked
        """
        self.tensors, self.dtype, self.place, self.published = dict(tensors), dtype, "", published
        self.nodes: list[Any] = []
        self.inputs: dict[str, Value] = {}
        self.constants: dict[str, Value] = {}

    def within(self, place: str) -> GraphWriting:
        """The same graph, whose tensors are named from there: those of a part of a module."""
        inner = copy.copy(self)
        inner.place = self.full(f"{place}.")
        return inner

    def full(self, name: str) -> str:
        """The name of a tensor in the whole."""
        return f"{self.place}{name}"

    def takes(self, name: str, dtype: torch.dtype, shape: Sequence[int | str]) -> Value:
        """An input of the graph."""
        self.inputs[name] = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(KINDS[dtype]))
        return self.inputs[name]

    def narrowed(self, x: Value) -> Value:
        """A float32 value in what the graph computes in."""
        return x if self.dtype is torch.float32 else self.node("Cast", [x], to=KINDS[self.dtype])

    def widened(self, x: Value) -> Value:
        """A value as float32, which no other output of the graph is."""
        return self.node("Identity", [x]) if self.dtype is torch.float32 else self.node("Cast", [x], to=KINDS[torch.float32])

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

    def number(self, value: int) -> Value:
        """A whole number, int64."""
        return self.constant(f"number.{value}", (), lambda: torch.tensor(value), dtype=torch.int64)

    def tensor(self, name: str, shape: Sequence[int], *, make: Callable[[Tensor], Tensor] | None = None, of: str = "") -> Value:
        """A tensor of the checkpoint in a shape, or what is made of it.

        of  a word for what is made: several things may be made of one
        """
        full = self.full(name)
        made = make or (lambda tensor: tensor.reshape(*shape))
        return self.constant(f"{full}.{of}" if of else full, shape, lambda: made(self.tensors[full]).to(self.dtype).contiguous())

    def vector(self, *names: str) -> Value:
        """Vectors of the checkpoint, one behind the other."""
        names = tuple(map(self.full, names))
        size = sum(len(self.tensors[name]) for name in names)
        return self.constant(_joined(names), (size,), lambda: torch.cat([self.tensors[name] for name in names]).to(self.dtype))

    def linear(self, x: Value, *names: str) -> Value:
        """What linear layers make of x, side by side: by matrices of the checkpoint, [out in] each, and biases where it holds them.

        names  of the layers; "" is the part itself
        """
        weights = [self.full(f"{name}.weight" if name else "weight") for name in names]
        biases = [f"{name}.bias" if name else "bias" for name in names]
        shape = (self.tensors[weights[0]].shape[1], sum(len(self.tensors[name]) for name in weights))

        def turned() -> Tensor:
            joined = torch.cat([self.tensors[name] for name in weights]) if len(weights) > 1 else self.tensors[weights[0]]
            return joined.T.to(self.dtype, memory_format=torch.contiguous_format).contiguous()

        matrix = self.constant(_joined(weights), shape, turned)
        matrix.meta[LYING] = [self.tensors[name] for name in weights]
        if self.published is not None:
            matrix.meta[PUBLISHED] = [partial(self.published, name, self.tensors[name]) for name in weights]
        product = self.node("MatMul", [x, matrix], name=_joined([*map(self.full, names)]))
        return self.node("Add", [product, self.vector(*biases)]) if self.full(biases[0]) in self.tensors else product

    def convolution(self, x: Value, name: str, *, stride: int, groups: int = 1, pads: Sequence[int] = (0, 0, 0, 0)) -> Value:
        """What a convolution of the checkpoint makes of float[batch channels rows columns].

        pads  zeros before rows and columns, then behind them
        """
        weight, bias = self.tensors[self.full(f"{name}.weight")], f"{name}.bias"
        given = [x, self.tensor(f"{name}.weight", weight.shape)]
        if self.full(bias) in self.tensors:
            given.append(self.vector(bias))
        facts: dict[str, Any] = {"kernel_shape": list(weight.shape[2:]), "strides": [stride, stride], "group": groups, "pads": list(pads)}
        return self.node("Conv", given, name=self.full(name), **facts)

    def batch_norm(self, x: Value, name: str, *, epsilon: float) -> Value:
        """A batch norm as it is after training, over the axis behind the batch."""
        parts = [self.vector(f"{name}.{part}") for part in ("weight", "bias", "running_mean", "running_var")]
        return self.node("BatchNormalization", [x, *parts], epsilon=epsilon)

    def clipped(self, x: Value, least: float, most: float) -> Value:
        """x within two numbers."""
        return self.node("Clip", [x, self._real(least), self._real(most)])

    def _real(self, value: float) -> Value:
        return self.constant(f"number.{value}", (), lambda: torch.tensor(value, dtype=self.dtype))

    def norm(self, x: Value, name: str, *, epsilon: float) -> Value:
        """A layer norm over the last axis."""
        return self.node("LayerNormalization", [x, self.vector(f"{name}.weight"), self.vector(f"{name}.bias")], axis=-1, epsilon=epsilon)

    def attention(self, query: Value, key: Value, value: Value, *, heads: int) -> Value:
        """Every query reads every key: all float[batch tokens heads*width]."""
        return self.node("Attention", [query, key, value], q_num_heads=heads, kv_num_heads=heads)

    def activated(self, x: Value, kind: str) -> Value:
        """What an activation makes of x, by the name that configs have for it."""
        if kind == "relu":
            return self.node("Relu", [x])
        if kind != "quick_gelu":
            return self.node("Gelu", [x], approximate="none" if kind == "gelu" else "tanh")
        if self.dtype is torch.float32:
            return self.node("QuickGelu", [x], domain=CONTRIB, alpha=1.702)
        scaled = self.node("Mul", [x, self._real(1.702)])
        return self.node("Mul", [x, self.node("Sigmoid", [scaled])])

    def heads(self, x: Value, heads: int, width: int) -> Value:
        """[batch tokens heads*width] -> [batch tokens heads width]."""
        return self.node("Reshape", [x, self.numbers(0, 0, heads, width)])

    def model(self, outputs: Mapping[str, tuple[Value, Sequence[int | str | None]]], *, dtype: torch.dtype | None = None) -> Any:
        """The whole, as an onnx_ir.Model, which gives these by their names, with their shapes.

        dtype  of what it gives; None: what it computes in
        """
        for name, (value, shape) in outputs.items():
            value.name, value.shape, value.type = name, ir.Shape(shape), ir.TensorType(KINDS[dtype or self.dtype])
        graph = ir.Graph(
            list(self.inputs.values()),
            [value for value, _ in outputs.values()],
            nodes=self.nodes,
            initializers=list(self.constants.values()),
            opset_imports=OPSETS,
            name="modelgraft",
        )
        graph.meta[READ] = list(self.tensors.values())
        return ir.Model(graph, ir_version=10, producer_name="modelgraft")


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]}.joined"
