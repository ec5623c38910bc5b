"""Matrices in panels of a few columns, of which four are read side by side: for decoders, which read few rows at once.

For one row memory is the limit, and a core reads several streams faster than one (Zen 3: 22.9 GB/s in place of 16.5). Onnxruntime packs a
float32 matrix for products in panels of 16 columns and reads them one after the other. It lays the filters of convolutions in panels
as well, of 8 or 16 channels, and its kernel for filters of one place, which are matrices, goes through four of them at once. So a product
of rows is written as such a convolution: rows are places of an image, the numbers of a row its channels. These operators (domain
com.microsoft.nchwc, which onnxruntime's own layout optimiser puts into graphs) take filters as they lie in the file: nothing is packed when
a session starts, and all is mapped.

    x [batch tokens k] -> Unsqueeze -> ReorderInput [1 k/b batch tokens b] -> Conv [1 n/b batch tokens b] -> ReorderOutput -> Squeeze

with b, the width of a panel, as the processor's kernels have it; x [rows k] is an image of one line. What computes number by number
between two matrices, as in the feed-forward part of a layer, does so in that form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from modelgraft_plugins.onnx.constants import drop_unused
from modelgraft_plugins.onnx.giving_back import GivingBack
from modelgraft_plugins.onnx.widening import constant_in, matrix_of

DOMAIN = "com.microsoft.nchwc"
BY_NUMBER = frozenset({"QuickGelu", "Gelu", "FastGelu", "Relu", "Sigmoid", "Tanh", "Mul", "Add"})  # from number to number of one place
TOKENS = ("batch", "tokens")  # the first axes of what a decoder reads, as its graph names them
PAGE = 4096  # bytes; a matrix begins where one does
PIECE = 4 << 20  # bytes of a matrix that are brought to panels at once
OPENED: Mapping[int, Sequence[int]] = {3: (0,), 2: (0, 1)}  # axes that an image has more than [batch tokens k], and than [rows k]
MOST_LEFT = 1 / 8  # of the numbers of matrices that may stay as they are: a session packs those anew, in memory of its own
LAID = "panels"  # how the file of them ends

Matrix = Callable[[], Any]  # gives float32[k n] of numpy
# Graph, Node and Value of onnx_ir, which is not among what mypy sees.
Graph = Any
Node = Any
Value = Any


def in_panels(path: Path, width: int) -> tuple[bytes, dict[str, Matrix]] | None:
    """The graph of a decoder that is written, and its matrices by the names of the inputs that they are to become: see `lay_out`.

    None for one that reads no tokens, whose matrices mostly do not fit, or that cannot be read here.
    """
    try:
        from modelgraft_plugins.light_ir import ir  # not at the top: a start needs none
    except ImportError:
        return None
    model = ir.load(path)
    if not _is_of_tokens(model.graph):
        return None
    numbers = _numbers(model.graph)
    matrices = lay_out(model.graph, width)
    if not matrices or _numbers(model.graph) > MOST_LEFT * numbers:
        return None
    return ir.serde.serialize_model(model).SerializeToString(), matrices


def reads_tokens(path: Path) -> bool:
    """Whether a graph that is written is a decoder's, as its inputs tell; False where it cannot be read here."""
    try:
        from modelgraft_plugins.light_ir import ir  # as above
    except ImportError:
        return False
    return _is_of_tokens(ir.load(path).graph)


def _is_of_tokens(graph: Graph) -> bool:
    return any(value.shape is not None and tuple(map(str, value.shape[:2])) == TOKENS for value in graph.inputs)


def _numbers(graph: Graph) -> int:
    """How many numbers of constant matrices products read."""
    weights = (node.inputs[1].const_value for node in graph if node.op_type in {"MatMul", "Gemm"} and node.inputs[1] is not None)
    return sum(weight.size for weight in weights if weight is not None)


def lay_out(graph: Graph, width: int) -> dict[str, Matrix]:
    """Put convolutions in the place of products by constant matrices. width: of a panel.

    Gives the matrices, [k n] each, by the names of new inputs of the graph, which are to become their panels: see `fill`.
    A matrix whose rows fill no whole panels stays, and one that reads anything else than [batch tokens k] or [rows k].
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


class Product(NamedTuple):
    """By a constant matrix, k rows and n columns, on the right.

    weight  [k n], or [n k] where it is turned;  bias  [n], where one is added
    """

    weight: Value
    is_turned: bool = False
    bias: Value | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Of the matrix, [k n]."""
        first, second = self.weight.const_value.shape
        return (second, first) if self.is_turned else (first, second)

    def matrix(self) -> Any:
        """Of numpy, [k n]."""
        found = self.weight.const_value.numpy()
        return found.T if self.is_turned else found


def _product(node: Node) -> Product | None:
    if (weight := matrix_of(node)) is not None:
        return Product(weight)
    if node.op_type != "Gemm" or node.domain:
        return None
    facts = {name: entry.value for name, entry in node.attributes.items()}
    weight, bias = node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None
    if (
        facts.get("transA", 0)
        or facts.get("alpha", 1.0) != 1
        or facts.get("beta", 1.0) != 1
        or weight is None
        or weight.const_value is None
    ):
        return None
    found = Product(weight, bool(facts.get("transB", 0)), bias)
    is_added = bias is None or (bias.const_value is not None and tuple(bias.const_value.shape) == found.shape[1:])
    return found if is_added and weight.const_value.dtype.name == "FLOAT" else None


def _fits(node: Node, width: int) -> bool:
    product = _product(node)
    if product is None:
        return False
    shape, (rows, columns) = node.inputs[0].shape, product.shape
    fills = rows % width == 0 and (product.bias is None or columns % width == 0)
    return fills and (shape is None or len(shape) in OPENED)


def _inner(graph: Graph, fitting: set[Node]) -> set[Value]:
    """What nodes give that compute number by number, where all that they read comes from matrices, and goes to matrices alone.

    What they read has as many axes and columns: one that stands for all of a row would be the first of a panel, and the others zeros.
    """
    forms, found = {node.outputs[0]: _form(node) for node in fitting}, set[Value]()
    nodes = [node for node in graph if node.op_type in BY_NUMBER and node not in fitting]
    for node in nodes:
        read = {forms.get(value) for value in node.inputs}
        if len(read) == 1 and None not in read:
            forms[node.outputs[0]] = read.pop()
            found.add(node.outputs[0])
    for node in reversed(nodes):
        value = node.outputs[0]
        goes = (use.node in fitting or use.node.outputs[0] in found for use in value.uses())
        if value in found and (value.is_graph_output() or not all(goes)):
            found.remove(value)
    return found


def _form(node: Node) -> tuple[int, int] | None:
    """How many axes and columns a product gives."""
    product, shape = _product(node), node.inputs[0].shape
    return None if product is None else (3 if shape is None else len(shape), product.shape[1])


class _Laying:
    """A graph while its matrices become panels."""

    def __init__(self, graph: Graph, width: int, *, inner: set[Value]) -> None:
        """inner: see `_inner`."""
        import numpy

        self.graph, self.width, self.inner = graph, width, inner
        self.matrices: dict[str, Matrix] = {}
        self.as_image: dict[Value, Value] = {}  # values by the same ones, as they were
        self.axes = {rank: constant_in(graph, f"image{rank}", numpy.array(axes, numpy.int64)) for rank, axes in OPENED.items()}

    def put_convolution(self, node: Node) -> None:
        """In the place of a product."""
        made, product, axes = list[Node](), _product(node), self._axes(node.inputs[0])
        assert product is not None
        given = [self._entered(node.inputs[0], made), self._panels(product), *([] if product.bias is None else [product.bias])]
        inside = _put(made, "Conv", *given, domain=DOMAIN, kernel_shape=[1, 1])
        left = _put(made, "ReorderOutput", inside, domain=DOMAIN, channels=product.shape[1], channels_last=1)
        self._take_place(node, made, _put(made, "Squeeze", left, axes), inside)

    def put_inside(self, node: Node) -> None:
        """The same node where it reads what convolutions give; it does not leave that form."""
        made = list[Node]()
        facts = {name: entry.value for name, entry in node.attributes.items()}
        given = _put(made, node.op_type, *[self._entered(value, made) for value in node.inputs], domain=node.domain, **facts)
        self.graph.insert_before(node, made)
        self.as_image[node.outputs[0]] = given

    def _entered(self, value: Value, made: list[Node]) -> Value:
        if value not in self.as_image:
            opened = _put(made, "Unsqueeze", value, self._axes(value))
            self.as_image[value] = _put(made, "ReorderInput", opened, domain=DOMAIN, channels_last=1)
        return self.as_image[value]

    def _axes(self, value: Value) -> Value:
        """Those that an image has more: of what has no shape, which is as it goes through a decoder."""
        return self.axes[3 if value.shape is None else len(value.shape)]

    def _panels(self, product: Product) -> Value:
        """The input that is to become the panels of a matrix: [n k 1 1], with further columns up to a whole panel."""
        from modelgraft_plugins.light_ir import ir

        name, (rows, columns) = f"{product.weight.name}.{'turned.' if product.is_turned else ''}{LAID}", product.shape
        if name not in self.matrices:
            self.matrices[name] = product.matrix
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


def fill(path: Path, matrices: Mapping[str, Matrix], width: int) -> None:
    """Write panels beside a graph that takes them, and let it hold them as constants of that file."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    graph, beside = model.graph, path.with_name(f"{path.name}.{LAID}")
    takes = [(value, [axis.dim_value for axis in value.type.tensor_type.shape.dim]) for value in graph.input if value.name in matrices]
    giving = GivingBack(4 * prod(shape) for _, shape in takes)
    with beside.open("wb") as file:
        for taken, shape in takes:
            file.seek(-(-file.tell() // PAGE) * PAGE)
            begin = file.tell()
            for piece in pieces(matrices[taken.name](), width):
                file.write(piece.data.cast("B"))  # what numpy writes by itself finds a disk full without the system's word for it
                giving.note(piece.nbytes)
            graph.input.remove(taken)
            held = graph.initializer.add(name=taken.name, data_type=onnx.TensorProto.FLOAT, data_location=onnx.TensorProto.EXTERNAL)
            held.dims.extend(shape)
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
