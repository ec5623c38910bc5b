"""Precisions of an exported graph: float32 as traced, float16, 8-bit dynamic, 8- and 4-bit weights."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modelgraft.errors import InputError, choices
from modelgraft.language.document import PRECISIONS

BLOCK = 32  # weights that share one scale in weight-only quantisation: what the kernels are fastest at


def check_precision(precision: str) -> str:
    """Give the precision back, or raise InputError with those there are."""
    if precision not in PRECISIONS:
        raise InputError(f"precision '{precision}' is not known to the onnx backend; it knows {choices(PRECISIONS)}")
    return precision


def reduce(path: Path, precision: str) -> None:
    """Bring a float32 graph to 8 or 4 bits in place; graphs of the other precisions stay as they were traced."""
    if precision in ("float32", "float16"):
        return
    plain, reduced = path.with_name("plain.onnx"), path.with_name("reduced.onnx")
    _gemm_to_matmul(path, plain)
    _remove(path)
    with _quiet():
        _quantise(plain, reduced, precision)
    _remove(plain)
    _rename(reduced, path)


def _remove(path: Path) -> None:
    for file in (path, path.with_name(f"{path.name}.data")):
        file.unlink(missing_ok=True)


def _rename(source: Path, target: Path) -> None:
    """Give a graph another name; its weights lie in a file that it names, so it is written anew."""
    import onnx

    model = onnx.load(source)
    _remove(source)
    onnx.save(model, target, save_as_external_data=True, location=f"{target.name}.data")


def _quantise(plain: Path, target: Path, precision: str) -> None:
    if precision == "int8":
        from onnxruntime.quantization import QuantType, quantize_dynamic  # type: ignore[import-untyped, unused-ignore]

        quantize_dynamic(
            plain, target, op_types_to_quantize=["MatMul"], weight_type=QuantType.QInt8, per_channel=True, use_external_data_format=True
        )
        return
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import (  # type: ignore[import-untyped, unused-ignore]
        DefaultWeightOnlyQuantConfig,
        MatMulNBitsQuantizer,
    )

    bits = {"w8": 8, "w4": 4}[precision]
    config = DefaultWeightOnlyQuantConfig(block_size=BLOCK, is_symmetric=True, accuracy_level=4, bits=bits)
    quantiser = MatMulNBitsQuantizer(onnx.load(plain), algo_config=config)
    quantiser.process()
    quantiser.model.save_model_to_file(str(target), use_external_data_format=True)


def _gemm_to_matmul(source: Path, target: Path) -> None:
    """Rewrite Gemm(x, W, b) as MatMul + Add, the only form that the quantisers read.

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


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantisers print and log advice; what matters is measured by the parity gate."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(previous)
