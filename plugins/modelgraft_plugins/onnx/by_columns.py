"""Matrices in 8 bits with a scale for every column, made of some columns at a time as they lie in the checkpoint: none is copied whole.

The head of a language model is a fifth of a small one, and in float32 four times what it becomes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from modelgraft_plugins.onnx.blocks import AT_ONCE, turned
from modelgraft_plugins.onnx.constants import LYING

if TYPE_CHECKING:
    from numpy import float32, int8
    from numpy.typing import NDArray

# Value of onnx_ir, which is not among what mypy sees.
Value = Any


def parts(weight: Value) -> Sequence[Any]:
    """What lies side by side in a matrix of a graph, [in some] each: turned views of the checkpoint where it is made of these alone."""
    return [tensor.T for tensor in weight.meta.get(LYING, ())] or [weight.const_value.numpy()]


def numbers(weight: Value, most: int) -> NDArray[int8]:
    """Give a matrix of a graph as whole numbers, int8[in out], the largest of each column being `most`."""
    import numpy

    found = numpy.empty(weight.const_value.shape.numpy(), numpy.int8)
    for start, columns in _some(weight):
        whole = numpy.rint(columns / _scales(columns, most)[:, None])  # elsewhere than in the columns: they may be those of a checkpoint
        found[:, start : start + len(columns)] = numpy.clip(whole, -most, most, out=whole).T
    return found


def scales(weight: Value, most: int) -> NDArray[float32]:
    """Give what its columns are multiplied with, float32[out]."""
    import numpy

    return numpy.concatenate([_scales(columns, most) for _, columns in _some(weight)])


def _some(weight: Value) -> Iterator[tuple[int, NDArray[float32]]]:
    """Some columns after the other, float32[some in], and where they begin."""
    begin = 0
    for part in parts(weight):
        rows, columns = part.shape
        step = max(1, AT_ONCE // max(rows, 1))
        for start in range(0, columns, step):
            yield begin + start, turned(part[:, start : start + step]).numpy()
        begin += columns


def _scales(columns: NDArray[float32], most: int) -> NDArray[float32]:
    """float32[some]: the number of largest magnitude becomes the largest whole one; a column of zeros stays one."""
    import numpy

    tops = numpy.maximum(columns.max(axis=1), -columns.min(axis=1)) / numpy.float32(most)
    return numpy.where(tops < numpy.finfo(numpy.float32).tiny, numpy.float32(1.0), tops)
