"""Matrices in blocks of 8 or 4 bits."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

from modelgraft.plugin import ExportError
from modelgraft_plugins.onnx.blocks import Blocks, in_blocks, side_by_side


def drawn(rows: int, columns: int) -> np.ndarray:
    """A matrix with an outlier, a column of zeros, and a column of one sign."""
    matrix = np.random.default_rng(0).standard_normal((rows, columns)).astype(np.float32)
    matrix[3, 1], matrix[:, 2], matrix[:, 3] = 90.0, 0.0, abs(matrix[:, 3])
    matrix[:, 0] = np.arange(rows) / 4 - 8  # halves, and a largest number with either sign
    return matrix


def as_onnxruntime(matrix: np.ndarray, *, bits: int, size: int) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """What onnxruntime's own quantiser makes of a graph of one product: its tensors and attributes."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", matrix.shape[0]])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", matrix.shape[1]])
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "product")
    graph = helper.make_graph([node], "one", [x], [y], [numpy_helper.from_array(matrix, "w")])
    config = DefaultWeightOnlyQuantConfig(block_size=size, is_symmetric=True, accuracy_level=4, bits=bits)
    quantiser = MatMulNBitsQuantizer(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), algo_config=config)
    quantiser.process()
    made: onnx.GraphProto = quantiser.model.model.graph
    tensors = {entry.name.removeprefix("w_"): numpy_helper.to_array(entry) for entry in made.initializer}
    return tensors, {found.name: helper.get_attribute_value(found) for found in made.node[0].attribute}


def assert_same(blocks: Blocks, matrix: np.ndarray) -> None:
    """Compare blocks with those of onnxruntime's quantiser, every byte."""
    tensors, attributes = as_onnxruntime(matrix, bits=blocks.bits, size=blocks.size)
    np.testing.assert_array_equal(blocks.packed, tensors[f"Q{blocks.bits}"])
    np.testing.assert_array_equal(blocks.scales, tensors["scales"])
    assert blocks.packed.dtype == np.uint8
    assert blocks.scales.dtype == np.float32
    assert blocks.attributes == attributes


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(
    ("rows", "columns", "size"), [(96, 75, 32), (100, 37, 32), (48, 5, 16), (130, 33, 64), (256, 7, 128), (70, 4, 256), (512, 300, 64)]
)
def test_blocks_are_those_of_the_quantiser_of_onnxruntime(rows, columns, size, bits):
    """Also where the last block is not full, and where the columns are not a multiple of those that are taken at once."""
    matrix = drawn(rows, columns)
    assert_same(in_blocks(matrix, bits=bits, size=size), matrix)


@pytest.mark.parametrize("bits", [8, 4])
def test_matrices_may_be_transposed_sliced_and_mapped(tmp_path, bits):
    """Nobody has to copy the weights of a checkpoint, which lie column after column."""
    matrix = drawn(64, 41)
    np.save(tmp_path / "w.npy", matrix.T)
    mapped = np.load(tmp_path / "w.npy", mmap_mode="r")
    assert_same(in_blocks(mapped.T, bits=bits), matrix)
    assert_same(in_blocks(mapped.T[:, 5:40:3], bits=bits), np.ascontiguousarray(matrix[:, 5:40:3]))
    assert_same(in_blocks(torch.from_numpy(mapped.copy()).T, bits=bits), matrix)


def test_other_types_become_float32_on_the_way():
    """A matrix in bfloat16 or float16 gives the blocks of the same numbers in float32."""
    tensor = torch.from_numpy(drawn(64, 33)).bfloat16()
    assert_same(in_blocks(tensor, bits=8), tensor.float().numpy())
    assert_same(in_blocks(tensor.half().numpy(), bits=8), tensor.half().float().numpy())


def test_what_cannot_be_in_blocks_is_said():
    """Another rank, another number of bits, another size."""
    said = r"blocks are made of matrices, in 8 or 4 bits and blocks of 16, 32, 64, 128, 256; found"
    with pytest.raises(ExportError, match=rf"{said} \[2 3 4\] in 8 bits and blocks of 32"):
        in_blocks(np.zeros((2, 3, 4), np.float32), bits=8)
    with pytest.raises(ExportError, match=rf"{said} \[64 3\] in 3 bits and blocks of 32"):
        in_blocks(np.zeros((64, 3), np.float32), bits=3)
    with pytest.raises(ExportError, match=rf"{said} \[64 3\] in 4 bits and blocks of 48"):
        in_blocks(np.zeros((64, 3), np.float32), bits=4, size=48)


@pytest.mark.parametrize("bits", [8, 4])
def test_blocks_of_matrices_side_by_side_are_those_of_the_joined_one(bits):
    """Of tensors as a checkpoint has them, [out in], read turned: as of a copy that lies as the graph has it."""
    parts = [torch.randn(out, 70) for out in (33, 5, 64)]
    found = side_by_side([in_blocks(part.T, bits=bits) for part in parts])
    wanted = in_blocks(np.ascontiguousarray(torch.cat(parts).T.numpy()), bits=bits)
    np.testing.assert_array_equal(found.packed, wanted.packed)
    np.testing.assert_array_equal(found.scales, wanted.scales)
    assert found.attributes == wanted.attributes
