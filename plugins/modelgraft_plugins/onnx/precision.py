"""Precisions of an exported graph: float32 as traced, float16, 8 bits dynamic, 8 and 4 bits in blocks.

Dynamic 8 bits are the fastest where many tokens are read at once, and have one scale for all that a matrix reads: a few
large numbers take the accuracy of the rest. The product of a gated layer has such outliers (arXiv 2405.14428), and what
other narrowing matrices read may have them too. Blocks have a scale for every few numbers, and bear them. So `int8` is
dynamic in as many matrices as the parity gate lets pass.

Where a processor adds pairs of 8-bit products in 16 bits, which overflow without a word (`processor.py`), dynamic weights
have 7 bits: products as fast as with 8, and right. Products of blocks do not overflow: both of their factors are signed there.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import TOLERANCES as OF_DTYPES
from modelgraft.plugin import ExportError
from modelgraft_plugins.onnx import store
from modelgraft_plugins.onnx.keys import WEIGHT_BITS, dynamic_bits
from modelgraft_plugins.onnx.quiet import muted

if TYPE_CHECKING:
    from modelgraft.plugin import Parity

# Largest accepted |export - torch| relative to the largest |torch| value of the output, by precision.
TOLERANCES: Mapping[str, tuple[float, str]] = {
    **OF_DTYPES,
    "int8": (0.25, "8-bit weights and activations; random weights are the worst case, trained ones stay near 0.02"),
    "w8": (0.2, "8-bit weights and activations in blocks of 32; outliers of trained language models reach 0.14 (SmolLM2)"),
    "w4": (0.6, "4-bit weights; random weights are the worst case"),
}
BLOCK = 32  # numbers that share one scale in blocks: what the kernels are fastest at

Blocked = Mapping[Path, frozenset[str]]  # for each graph the nodes whose matrices are held in blocks


@dataclass(frozen=True, slots=True)
class Reduced:
    """What came of bringing graphs to a precision.

    weights   how they are held, such as "8 bits dynamic, 90 of 211 matrices in blocks of 32"; "" as they were traced
    warnings  what a user must know: why not all of them are held as the precision says
    """

    parity: Parity
    weights: str = ""
    warnings: tuple[str, ...] = ()


def bring(graphs: Sequence[Path], precision: str, prove: Callable[[], Parity]) -> Reduced:
    """Bring float32 graphs to 8 or 4 bits in place, by the first way that is near enough to torch.

    graphs  those of other precisions stay as they were traced, and are proven all the same
    prove   compares the graphs, as they lie there, with torch

    Raises ExportError with what the gate said of the last way.
    """
    if precision not in WEIGHT_BITS:
        store.tell(2, f"bringing to {precision}")
        store.tell(3, "comparing with torch")
        return Reduced(_held(prove()))
    refused: list[str] = []
    with tempfile.TemporaryDirectory(dir=graphs[0].parent) as aside:
        plain = {graph: Path(aside) / graph.name for graph in graphs}
        matrices = {graph: _gemm_to_matmul(graph, plain[graph]) for graph in graphs}
        for blocked in _ways(matrices, precision):
            store.tell(2, f"bringing to {precision}")
            for graph in graphs:
                _quantise(
                    plain[graph],
                    graph,
                    dynamic=matrices[graph].keys() - blocked[graph],
                    blocked=blocked[graph],
                    bits=WEIGHT_BITS[precision],
                )
            store.tell(3, "comparing with torch")
            parity, weights = prove(), _told(blocked, matrices, precision)
            if parity.holds:
                break
            refused.append(f"{weights} would be {parity.relative:.2g} from torch")
    _held(parity)
    warning = f"{precision} is {weights}: {', '.join(refused)} (tolerance {parity.tolerance:.2g})"
    return Reduced(parity, weights, (warning,) if refused else ())


def _held(parity: Parity) -> Parity:
    if not parity.holds:
        raise ExportError(f"the export differs from torch: {parity}")
    return parity


def _ways(matrices: Mapping[Path, Mapping[str, bool]], precision: str) -> list[Blocked]:
    """Which matrices are in blocks: all of them; for int8 first none, then those that narrow. No way comes twice."""
    everything = {graph: frozenset(found) for graph, found in matrices.items()}
    narrowing = {graph: frozenset(node for node, narrows in found.items() if narrows) for graph, found in matrices.items()}
    nothing = dict.fromkeys(matrices, frozenset[str]())
    tried: list[Blocked] = []
    for way in (nothing, narrowing, everything) if precision == "int8" else (everything,):
        if way not in tried:
            tried.append(way)
    return tried


def _told(blocked: Blocked, matrices: Mapping[Path, Mapping[str, bool]], precision: str) -> str:
    some, every = sum(map(len, blocked.values())), sum(map(len, matrices.values()))
    if not every:
        return ""
    if precision != "int8" or 0 < some == every:
        return f"{WEIGHT_BITS[precision]} bits in blocks of {BLOCK}"
    way = f"{dynamic_bits()} bits dynamic"
    return f"{way}, {some} of {every} matrices in blocks of {BLOCK}" if some else way


def _quantise(plain: Path, target: Path, *, dynamic: Collection[str], blocked: Collection[str], bits: int) -> None:
    """Write a graph with the matrices of some nodes in 8 bits dynamic (7 where products saturate), and those of others in blocks."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic  # type: ignore[import-untyped, unused-ignore]
    from onnxruntime.quantization.matmul_nbits_quantizer import (  # type: ignore[import-untyped, unused-ignore]
        DefaultWeightOnlyQuantConfig,
        MatMulNBitsQuantizer,
    )

    for file in (target, target.with_name(f"{target.name}.data")):
        file.unlink(missing_ok=True)  # onnx appends to a file of weights that is there
    between = plain.with_name(f"dynamic.{plain.name}") if blocked else target
    with muted(level=logging.WARNING):  # the quantisers print and log advice; what matters is measured by the parity gate
        if dynamic:
            quantize_dynamic(
                plain,
                between,
                op_types_to_quantize=["MatMul"],
                nodes_to_quantize=sorted(dynamic),
                weight_type=QuantType.QInt8,
                per_channel=True,
                reduce_range=dynamic_bits() == 7,
                use_external_data_format=True,
            )
        if blocked:
            config = DefaultWeightOnlyQuantConfig(block_size=BLOCK, is_symmetric=True, accuracy_level=4, bits=bits)
            quantiser = MatMulNBitsQuantizer(onnx.load(between if dynamic else plain), algo_config=config)
            quantiser.process()
            quantiser.model.save_model_to_file(str(target), use_external_data_format=True)
        if not dynamic and not blocked:
            onnx.save(onnx.load(plain), target, save_as_external_data=True, location=f"{target.name}.data")


def _gemm_to_matmul(source: Path, target: Path) -> Mapping[str, bool]:
    """Rewrite Gemm(x, W, b) as MatMul + Add, the only form that the quantisers read; says of each such node whether it narrows.

    Shapes recorded for weights are dropped: those of transposed weights would be wrong and stop the quantisers.
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(source)
    weights = {entry.name: entry for entry in model.graph.initializer}
    nodes: list[Any] = []
    for node in model.graph.node:
        facts = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        if node.op_type != "Gemm" or node.input[1] not in weights or facts.get("alpha", 1.0) != 1.0 or facts.get("transA"):
            nodes.append(node)
            continue
        if facts.get("transB"):
            entry = weights[node.input[1]]
            entry.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(entry).T.copy(), entry.name))
        output, has_bias = node.output[0], len(node.input) > 2
        product = f"{output}_product" if has_bias else output
        nodes.append(helper.make_node("MatMul", list(node.input[:2]), [product], f"{node.name}_matmul"))
        if has_bias:
            nodes.append(helper.make_node("Add", [product, node.input[2]], [output], f"{node.name}_add"))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    kept = [value for value in model.graph.value_info if value.name not in weights]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)
    onnx.save(model, target, save_as_external_data=True, location=f"{target.name}.data")
    shapes = {node.name: weights[node.input[1]].dims for node in nodes if node.op_type == "MatMul" and node.input[1] in weights}
    return {name: shape[0] > shape[1] for name, shape in shapes.items() if len(shape) == 2}
