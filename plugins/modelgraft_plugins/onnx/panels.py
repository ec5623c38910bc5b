"""Matrices in panels of a few columns, of which four are read side by side: for decoders, which read few rows at once.

For one row memory is the limit, and a core reads several streams faster than one (Zen 3: 22.9 GB/s in place of 16.5). Onnxruntime packs a
float32 matrix for products in panels of 16 columns and reads them one after the other. It lays the filters of convolutions in panels
as well, of 8 or 16 channels, and its kernel for filters of one place, which are matrices, goes through four of them at once. So a product
of rows is written as such a convolution: rows are places of an image, the numbers of a row its channels. These operators (domain
com.microsoft.nchwc, which onnxruntime's own layout optimiser puts into graphs) take filters as they lie in the file: nothing is packed when
a session starts, and all is mapped.

    x [batch tokens k] -> Unsqueeze -> ReorderInput [1 k/b batch tokens b] -> Conv [1 n/b batch tokens b] -> ReorderOutput -> Squeeze

with b, the width of a panel, as the processor's kernels have it. What computes number by number between two matrices, as in the
feed-forward part of a layer, does so in that form.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from modelgraft_plugins.onnx.constants import drop_unused
from modelgraft_plugins.onnx.giving_back import GivingBack
from modelgraft_plugins.onnx.widening import constant_in, matrix_of

DOMAIN = "com.microsoft.nchwc"
BY_NUMBER = frozenset({"QuickGelu", "Gelu", "FastGelu", "Relu", "Sigmoid", "Tanh", "Mul", "Add"})  # from number to number of one place
TOKENS = ("batch", "tokens")  # the first axes of what a decoder reads, as its graph names them
PAGE = 4096  # bytes; a matrix begins where one does
PIECE = 4 << 20  # bytes of a matrix that are brought to panels at once
OPEN = 3  # axes of what matrices read: batch, tokens, and the numbers of one
LAID = "panels"  # how the file of them ends

# Graph, Node, Value and Tensor of onnx_ir, which is not among what mypy sees.
Graph = Any
Node = Any
Value = Any
Tensor = Any


def in_panels(path: Path, width: int) -> tuple[bytes, dict[str, Tensor]] | None:
    """The graph of a decoder that is written, and its matrices by the names of the inputs that they are to become: see `lay_out`.

    None for one that reads no tokens, or cannot be read here.
    """
    try:
        from modelgraft_plugins.light_ir import ir  # not at the top: a start needs none
    except ImportError:
        return None
    model = ir.load(path)
    if not any(value.shape is not None and tuple(map(str, value.shape[:2])) == TOKENS for value in model.graph.inputs):
        return None
    matrices = lay_out(model.graph, width)
    return (ir.serde.serialize_model(model).SerializeToString(), matrices) if matrices else None


def lay_out(graph: Graph, width: int) -> dict[str, Tensor]:
    """Put convolutions in the place of products by constant matrices. width: of a panel.

    Gives the matrices, [k n] each, by the names of new inputs of the graph, which are to become their panels: see `fill`.
    What has another number of rows than panels have, or axes than batch, tokens and numbers, stays.
    """
    fitting = {node for node in graph if _fits(node, width)}
    laying = _Laying(graph, width, inner=_inner(graph, fitting))
    for node in list(graph):
        if node in fitting:
            laying.put_convolution(node)
        elif node.outputs[0] in laying.inner:
            laying.put_inside(node)
    for node in reversed(list(graph)):
        if all(not value.uses() and not value.is_graph_output() for value in node.outputs):
            graph.remove(node, safe=True)
    drop_unused(graph)
    graph.opset_imports[DOMAIN] = 1
    return laying.matrices


def _fits(node: Node, width: int) -> bool:
    weight = matrix_of(node)
    shape = node.inputs[0].shape if weight is not None else None
    return weight is not None and weight.const_value.shape[0] % width == 0 and (shape is None or len(shape) == OPEN)


def _inner(graph: Graph, fitting: set[Node]) -> set[Value]:
    """What nodes give that compute number by number, where all that they read comes from matrices, and goes to matrices alone.

    What they read has as many columns: one that stands for all of a row would be the first of a panel, and the others zeros.
    """
    columns, found = {node.outputs[0]: node.inputs[1].const_value.shape[1] for node in fitting}, set[Value]()
    nodes = [node for node in graph if node.op_type in BY_NUMBER and node not in fitting]
    for node in nodes:
        read = {columns.get(value) for value in node.inputs}
        if len(read) == 1 and None not in read:
            columns[node.outputs[0]] = read.pop()
            found.add(node.outputs[0])
    for node in reversed(nodes):
        value = node.outputs[0]
        goes = (use.node in fitting or use.node.outputs[0] in found for use in value.uses())
        if value in found and (value.is_graph_output() or not all(goes)):
            found.remove(value)
    return found


class _Laying:
    """A graph while its matrices become panels."""

    def __init__(self, graph: Graph, width: int, *, inner: set[Value]) -> None:
        """inner: see `_inner`."""
        import numpy

        self.graph, self.width, self.inner = graph, width, inner
        self.matrices: dict[str, Tensor] = {}
        self.as_image: dict[Value, Value] = {}  # values by the same ones, [batch tokens n]
        self.axes = constant_in(graph, "image", numpy.array([0], numpy.int64))

    def put_convolution(self, node: Node) -> None:
        """In the place of a product."""
        weight = matrix_of(node)
        assert weight is not None
        made, columns = list[Node](), weight.const_value.shape[1]
        product = _put(made, "Conv", self._entered(node.inputs[0], made), self._panels(weight), domain=DOMAIN, kernel_shape=[1, 1])
        left = _put(made, "ReorderOutput", product, domain=DOMAIN, channels=columns, channels_last=1)
        self._take_place(node, made, _put(made, "Squeeze", left, self.axes), product)

    def put_inside(self, node: Node) -> None:
        """The same node where it reads what convolutions give; it does not leave that form."""
        made = list[Node]()
        facts = {name: entry.value for name, entry in node.attributes.items()}
        given = _put(made, node.op_type, *[self._entered(value, made) for value in node.inputs], domain=node.domain, **facts)
        self.graph.insert_before(node, made)
        self.as_image[node.outputs[0]] = given

    def _entered(self, value: Value, made: list[Node]) -> Value:
        if value not in self.as_image:
            opened = _put(made, "Unsqueeze", value, self.axes)
            self.as_image[value] = _put(made, "ReorderInput", opened, domain=DOMAIN, channels_last=1)
        return self.as_image[value]

    def _panels(self, weight: Value) -> Value:
        """The input that is to become the panels of a matrix: [n k 1 1], with further columns up to a whole panel."""
        from modelgraft_plugins.light_ir import ir

        name, (rows, columns) = f"{weight.name}.{LAID}", weight.const_value.shape
        if name not in self.matrices:
            self.matrices[name] = weight.const_value
            shape = ir.Shape([-(-columns // self.width) * self.width, rows, 1, 1])
            self.graph.inputs.append(ir.Value(name=name, shape=shape, type=ir.TensorType(ir.DataType.FLOAT)))
        return next(value for value in reversed(self.graph.inputs) if value.name == name)

    def _take_place(self, node: Node, made: Sequence[Node], given: Value, product: Value) -> None:
        old = node.outputs[0]
        self.graph.insert_before(node, made)
        self.as_image[given] = product
        given.shape, given.type, given.name = old.shape, old.type, old.name
        old.replace_all_uses_with(given, replace_graph_outputs=True)
        self.graph.remove(node, safe=True)


def _put(made: list[Node], operator: str, *given: Value, domain: str = "", **facts: Any) -> Value:
    from modelgraft_plugins.light_ir import ir

    made.append(ir.node(operator, list(given), attributes=facts, domain=domain))
    return made[-1].outputs[0]


def fill(path: Path, matrices: Mapping[str, Tensor], width: int) -> None:
    """Write panels beside a graph that takes them, and let it hold them as constants of that file."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    graph, giving = model.graph, GivingBack(matrix.nbytes for matrix in matrices.values())
    beside = path.with_name(f"{path.name}.{LAID}")
    with beside.open("wb") as file:
        for taken in [value for value in graph.input if value.name in matrices]:
            file.seek(-(-file.tell() // PAGE) * PAGE)
            begin = file.tell()
            for piece in pieces(matrices[taken.name].numpy(), width):
                file.write(piece.data.cast("B"))  # what numpy writes by itself finds a disk full without the system's word for it
                giving.note(piece.nbytes)
            graph.input.remove(taken)
            held = graph.initializer.add(name=taken.name, data_type=onnx.TensorProto.FLOAT, data_location=onnx.TensorProto.EXTERNAL)
            held.dims.extend(axis.dim_value for axis in taken.type.tensor_type.shape.dim)
            for key, value in {"location": beside.name, "offset": begin, "length": file.tell() - begin}.items():
                held.external_data.add(key=key, value=str(value))
    path.write_bytes(model.SerializeToString())


def pieces(matrix: Any, width: int) -> Iterator[Any]:
    """The panels of float32[k n], several at a time: float32[panels k width], zeros behind the last column.

    `Any`: of numpy, which is imported when one is made.
    """
    import numpy

    rows, columns = matrix.shape
    step = max(PIECE // (4 * rows * width), 1) * width
    for start in range(0, columns, step):
        part = matrix[:, start : start + step]
        missing = -part.shape[1] % width
        part = numpy.pad(part, ((0, 0), (0, missing))) if missing else part
        yield numpy.ascontiguousarray(part.reshape(rows, -1, width).transpose(1, 0, 2))
