"""Matrices of a graph in 8 or 4 bits: its nodes are changed at once, its numbers when they are written.

A graph of onnx_ir holds tensors that are made on demand: mapped from a file, or read from a checkpoint. What stands here puts others in
their place that are as lazy, so that writing a graph goes through its matrices one by one, and nothing is held twice.

Dynamic products are the nodes that onnxruntime knows together as one (DynamicQuantizeMatMul): what a matrix reads is brought to 8 bits by
DynamicQuantizeLinear, multiplied by MatMulInteger, and scaled. Weights are symmetric around zero, with a scale per column.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from modelgraft.plugin import begin_to_send, let_go, seals
from modelgraft_plugins.light_ir import ir
from modelgraft_plugins.onnx import by_columns
from modelgraft_plugins.onnx.blocks import ACCURACY, Blocks, in_blocks, side_by_side
from modelgraft_plugins.onnx.giving_back import GIVEN_BACK, READ, GivingBack
from modelgraft_plugins.onnx.kept_blocks import Kept, kept_of
from modelgraft_plugins.onnx.telling import telling_layers
from modelgraft_plugins.onnx.turning import turn_as_written

CONTRIB = "com.microsoft"
MOST = {8: 127, 7: 64}  # the largest number of a weight by its bits, as onnxruntime's quantiser has them
PARTS, WHOLE = 16, 1 << 22  # a matrix of more than this part of all numbers, and of more than so many, is held in several
TOGETHER = 16  # columns that a kernel for blocks takes at most
PLAIN = {"alpha": 1.0, "beta": 1.0, "transA": 0}  # of a Gemm that is a product and a sum

# Model, Graph, Node and Value of onnx_ir, which is not among what mypy sees; arrays of numpy.
Model = Any
Graph = Any
Node = Any
Value = Any
Array = Any


def matrices_of(model: Model) -> Mapping[str, bool]:
    """The nodes that multiply by a matrix of the graph, and of each whether it narrows: gives less than it reads."""
    found = {node.name: matrix for node in model.graph if (matrix := _matrix_of(node)) is not None}
    return {name: rows > columns for name, (rows, columns) in found.items()}


def reduce(
    model: Model, *, dynamic: Collection[str], blocked: Collection[str], bits: int, size: int, dynamic_bits: int, keeps: bool = False
) -> int:
    """Bring the matrices of some nodes to 8 or 7 bits dynamic, and those of others to blocks; gives how many blocks were there already.

    bits, size    of the blocks;  dynamic_bits  of the weights of dynamic products
    keeps         blocks that a file holds are taken over: see `kept_blocks`
    """
    graph, read, means = model.graph, dict[int, tuple[Value, ...]](), dict[int, Value]()
    most = max(WHOLE, sum(math.prod(node.inputs[1].shape) for node in graph if node.name in blocked) // PARTS)
    there = kept_of({node.name: node.inputs[1] for node in graph if node.name in blocked}, bits=bits) if keeps else {}
    for node in list(graph):
        if node.name not in dynamic and node.name not in blocked:
            continue
        product = _as_product(graph, node)
        if product.name in there:
            _kept(graph, product, there[product.name], means, most=most)
        elif product.name in blocked:
            _in_blocks(graph, product, bits=bits, size=size, most=most)
        else:
            _in_eight(graph, product, read, most=MOST[dynamic_bits])
    for name in [name for name, value in graph.initializers.items() if not value.uses() and not value.is_graph_output()]:
        del graph.initializers[name]
    model.opset_imports.setdefault(CONTRIB, 1)
    return len(there)


def save(model: Model, path: Path) -> None:
    """Write an onnx_ir.Model with its weights beside it (`path.data`), one tensor after the other.

    Pages of the files that they are read from are given back on the way.
    """
    turn_as_written(model.graph)
    tell = telling_layers(model.graph)
    sizes = [value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None]
    giving = GivingBack(sizes, model.graph.meta.get(READ, ()))

    def hear(tensor: Any, *rest: Any) -> None:  # called before a tensor is written
        tell(tensor, *rest)
        giving.note(tensor.nbytes)

    weights = path.with_name(f"{path.name}.data")
    try:
        ir.save(model, path, external_data=weights.name, callback=hear)
    except OSError as error:
        raise _refused(weights, error, sum(sizes)) from error
    if sum(sizes) > GIVEN_BACK:
        let_go()  # of what the last of them were read from and made in
        seals.begin_to_seal(weights)  # while it is compared
        begin_to_send(weights)


def _refused(weights: Path, error: OSError, size: int) -> OSError:
    """Why so many bytes found no room, as the system says when it is asked for them again: numpy tells how many it took alone."""
    if error.errno is None and hasattr(os, "posix_fallocate"):
        try:
            with weights.open("wb") as stream:
                os.posix_fallocate(stream.fileno(), 0, size)
        except OSError as found:
            return found
        finally:
            weights.unlink(missing_ok=True)
    return error


def _matrix_of(node: Node) -> tuple[int, int] | None:
    """The sizes of the matrix that a node multiplies by, in and out; None where there is none, or more is done than a product and a sum."""
    if node.domain or node.op_type not in {"MatMul", "Gemm"}:
        return None
    weight = node.inputs[1]
    if weight is None or weight.const_value is None or weight.name not in node.graph.initializers or len(weight.const_value.shape) != 2:
        return None
    facts = {name: node.attributes[name].value for name in PLAIN if name in node.attributes}
    if any(value != PLAIN[name] for name, value in facts.items()) or weight.const_value.dtype != ir.DataType.FLOAT:
        return None
    rows, columns = weight.const_value.shape
    return (columns, rows) if _is_turned(node) else (rows, columns)


def _is_turned(node: Node) -> bool:
    return node.op_type == "Gemm" and "transB" in node.attributes and bool(node.attributes["transB"].value)


def _as_product(graph: Graph, node: Node) -> Node:
    """A Gemm as MatMul and Add, under its name; a MatMul as it is."""
    if node.op_type == "MatMul":
        return node
    weight = node.inputs[1]
    if _is_turned(node):
        weight = _turned(graph, weight)
    product = ir.node("MatMul", [node.inputs[0], weight], name=node.name)
    made = [product]
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        made.append(ir.node("Add", [product.outputs[0], node.inputs[2]], name=f"{node.name}.sum"))
    put(graph, node, made)
    product.outputs[0].type = product.outputs[0].type or node.outputs[0].type
    return product


def _turned(graph: Graph, weight: Value) -> Value:
    def turned() -> Array:
        return weight.const_value.numpy().T.copy()

    rows, columns = weight.const_value.shape
    return _lazy(graph, f"{weight.name}.turned", weight.const_value.dtype, (columns, rows), turned)


def _in_blocks(graph: Graph, node: Node, *, bits: int, size: int, most: int) -> None:
    """A product whose numbers and scales are made together, part by part, when the first of a part is written."""
    weight, made = node.inputs[1], dict[int, _Once]()
    rows, columns = weight.const_value.shape
    for some in _parts(rows, columns, most):
        made[some.start] = _Once(partial(_blocks_of, weight, bits, size, some))
    facts = {"K": rows, "bits": bits, "block_size": size, "accuracy_level": ACCURACY}
    name = f"{weight.name}.{bits}x{size}"
    put(graph, node, _products(graph, node, name, facts, most, lambda half, some: made[some.start].of(half)))


def _parts(rows: int, columns: int, most: int) -> list[slice]:
    """The columns of a matrix in parts of about so many numbers: what is opened packs a part whole before it lets go of what it read.

    Each begins where the kernels begin with columns that they take together, so that each is summed up as it was.
    """
    least = -(-columns // max(1, -(-rows * columns // most)))
    step = -(-least // TOGETHER) * TOGETHER
    return [slice(start, min(start + step, columns)) for start in range(0, columns, step)]


def _products(graph: Graph, node: Node, name: str, facts: Mapping[str, Any], most: int, of: Callable[[str, slice], Array]) -> list[Node]:
    """The nodes of a product by blocks, the last under the name of the old one.

    of  gives "packed" or "scales" of some columns
    """
    rows, columns, size = facts["K"], node.inputs[1].const_value.shape[1], facts["block_size"]
    count, parts = -(-rows // size), _parts(rows, columns, most)
    made = []
    for some in parts:
        own, width = f".{some.start}" if len(parts) > 1 else "", some.stop - some.start
        packed = _lazy(
            graph, f"{name}{own}.packed", ir.DataType.UINT8, (width, count, size * facts["bits"] // 8), partial(of, "packed", some)
        )
        scales = _lazy(graph, f"{name}{own}.scales", ir.DataType.FLOAT, (width, count), partial(of, "scales", some))
        read, attributes = [node.inputs[0], packed, scales], {**facts, "N": width}
        made.append(ir.node("MatMulNBits", read, attributes=attributes, domain=CONTRIB, name=f"{node.name}{own}"))
    if len(parts) > 1:
        made.append(ir.node("Concat", [part.outputs[0] for part in made], attributes={"axis": -1}, name=node.name))
    return made


def _blocks_of(weight: Value, bits: int, size: int, some: slice) -> Mapping[str, Array]:
    """Numbers and scales of some columns.

    Made of tensors of the checkpoint as they lie there, where the matrix is only a turned view of them: no copy of it is made.
    """
    found, start = list[Blocks](), 0
    for part in by_columns.parts(weight):
        within = part[:, max(some.start - start, 0) : max(some.stop - start, 0)]
        start += part.shape[1]
        if within.shape[1]:
            found.append(in_blocks(within, bits=bits, size=size))
    blocks = side_by_side(found)
    return {"packed": blocks.packed, "scales": blocks.scales}


def _kept(graph: Graph, node: Node, kept: Kept, means: dict[int, Value], *, most: int) -> None:
    """A product by blocks that a file holds. means: of what values means were taken block by block before, by the value."""
    x, weight = node.inputs
    name, count, parts = f"{weight.name}.kept", kept.rows // kept.size, _parts(kept.rows, kept.columns, most)
    read = _Once(lambda: {f"{half}.{some.start}": made[some] for half, made in _halves_of(kept) for some in parts})
    products = _products(graph, node, name, kept.attributes, most, lambda half, some: read.of(f"{half}.{some.start}"))
    if not kept.is_shifted:
        put(graph, node, products)
        return
    made: list[Node] = []
    if id(x) not in means:  # [batch tokens rows] -> [batch tokens blocks]
        facts = {"kernel_shape": [kept.size], "strides": [kept.size]}
        made.append(ir.node("AveragePool", [x], attributes=facts, name=f"{node.name}.means"))
        means[id(x)] = made[0].outputs[0]
    shifts = _lazy(graph, f"{name}.shifts", ir.DataType.FLOAT, (count, kept.columns), kept.shifts)
    products[-1].name = f"{node.name}.blocks"
    beside = ir.node("MatMul", [means[id(x)], shifts], name=f"{node.name}.shifts")
    put(graph, node, [*made, *products, beside, ir.node("Add", [products[-1].outputs[0], beside.outputs[0]], name=node.name)])


def _halves_of(kept: Kept) -> Iterator[tuple[str, Array]]:
    yield "packed", kept.packed()
    yield "scales", kept.scales()


class _Once:
    """What is made once for all that takes a part of it, and let go of when all parts were taken. It may be made again after that."""

    def __init__(self, make: Callable[[], Mapping[str, Array]]) -> None:
        self.make, self.left = make, dict[str, Array]()

    def of(self, part: str) -> Array:
        """One of them."""
        if part not in self.left:
            self.left = dict(self.make())
        return self.left.pop(part)


def _in_eight(graph: Graph, node: Node, read: dict[int, tuple[Value, ...]], *, most: int) -> None:
    """A product of whole numbers, scaled. read: what values were brought to 8 bits before, by the value."""
    x, weight = node.inputs
    rows, columns = weight.const_value.shape
    made: list[Node] = []
    if id(x) not in read:
        found = ir.node("DynamicQuantizeLinear", [x], num_outputs=3, name=f"{node.name}.read")
        made.append(found)
        read[id(x)] = tuple(found.outputs)
    numbers, scale, zero = read[id(x)]
    whole = _lazy(graph, f"{weight.name}.8", ir.DataType.INT8, (rows, columns), partial(by_columns.numbers, weight, most))
    own = _lazy(graph, f"{weight.name}.8.scales", ir.DataType.FLOAT, (columns,), partial(by_columns.scales, weight, most))
    none = _lazy(graph, f"{weight.name}.8.zeros", ir.DataType.INT8, (columns,), lambda: _zeros(columns))
    product = ir.node("MatMulInteger", [numbers, whole, zero, none], name=f"{node.name}.whole")
    cast = ir.node("Cast", [product.outputs[0]], attributes={"to": ir.DataType.FLOAT}, name=f"{node.name}.cast")
    both = ir.node("Mul", [scale, own], name=f"{node.name}.scales")
    scaled = ir.node("Mul", [cast.outputs[0], both.outputs[0]], name=node.name)
    put(graph, node, [*made, product, cast, both, scaled])


def _zeros(columns: int) -> Array:
    import numpy

    return numpy.zeros(columns, numpy.int8)


def _lazy(graph: Graph, name: str, kind: Any, shape: tuple[int, ...], make: Callable[[], Array]) -> Value:
    """A tensor of the graph that is made when it is written; one of that name that is there already."""
    if name not in graph.initializers:
        tensor = ir.LazyTensor(lambda: ir.Tensor(make(), name=name), dtype=kind, shape=ir.Shape(shape), name=name)
        graph.initializers[name] = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(kind), const_value=tensor)
    return graph.initializers[name]


def put(graph: Graph, node: Node, made: list[Node]) -> None:
    """Nodes in the place of one: the last gives what it gave."""
    old, new = node.outputs[0], made[-1].outputs[0]
    new.shape, new.type, new.name = old.shape, old.type, old.name
    graph.insert_before(node, made)
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(node, safe=True)
