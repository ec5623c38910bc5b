"""Matrices in 8 bits with a scale for every column, made of some columns at a time."""

from __future__ import annotations

import numpy
import onnx_ir as ir
import pytest
import torch

from modelgraft_plugins.onnx import by_columns
from modelgraft_plugins.onnx.constants import LYING

ROWS, WIDTHS, MOST = 40, (70, 30), 127


def never():
    raise AssertionError("the matrix is made whole")


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_a_matrix_of_tensors_that_lie_side_by_side_is_made_of_some_columns_at_a_time(kind, monkeypatch):
    """The numbers of the whole one, wherever a piece begins; the tensors stay what they were, and nothing is made whole."""
    drawn = torch.Generator().manual_seed(0)
    stored = [torch.randn(width, ROWS, generator=drawn).to(kind) for width in WIDTHS]
    stored[0][3] = 0  # a column of zeros has no scale of its own
    before = [tensor.clone() for tensor in stored]
    shape = ir.Shape([ROWS, sum(WIDTHS)])
    lazy = ir.LazyTensor(never, dtype=ir.DataType.FLOAT, shape=shape, name="w")
    value = ir.Value(name="w", shape=shape, type=ir.TensorType(ir.DataType.FLOAT), const_value=lazy)
    value.meta[LYING] = stored
    monkeypatch.setattr(by_columns, "AT_ONCE", 16 * ROWS)
    whole, scales = by_columns.numbers(value, MOST), by_columns.scales(value, MOST)
    matrix = torch.cat(before).float().numpy().T
    tops = abs(matrix).max(axis=0)
    numpy.testing.assert_array_equal(scales, numpy.where(tops > 0, tops / numpy.float32(MOST), numpy.float32(1)))
    assert whole.dtype == numpy.int8
    numpy.testing.assert_array_equal(whole, numpy.rint(matrix / scales))
    assert all(torch.equal(tensor, old) for tensor, old in zip(stored, before, strict=True))
