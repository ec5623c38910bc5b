"""Whether two values are equal, whatever they are made of."""

from __future__ import annotations

from typing import Any

from modelgraft.records.owning import is_array
from modelgraft.records.record import Record


def same(one: Any, other: Any, *, tolerance: float = 0.0) -> bool:
    """Whether two values are equal: tensors elementwise, within an absolute and relative tolerance; NaN equals NaN."""
    if one is other:
        return True
    if hasattr(one, "dtype") and hasattr(other, "dtype") and hasattr(one, "detach"):
        return _same_tensors(one, other, tolerance)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(same(a, b, tolerance=tolerance) for a, b in zip(one, other, strict=True))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[key], tolerance=tolerance) for key, value in one.items())
    if isinstance(one, Record):
        return type(one) is type(other) and same(one.parts(), other.parts(), tolerance=tolerance)
    if is_array(one) and is_array(other):
        return _same_arrays(one, other, tolerance)
    if isinstance(one, float) and isinstance(other, float):
        return one == other or (one != one and other != other) or abs(one - other) <= tolerance * max(1.0, abs(other))  # noqa: PLR0124 NaN
    has_own = any("__eq__" in vars(base) for base in type(one).__mro__[:-1])
    if type(one) is type(other) and not has_own:  # it equals itself alone: then what it holds is compared
        return same(getattr(one, "__dict__", None), getattr(other, "__dict__", None), tolerance=tolerance)
    return bool(one == other)


def _same_arrays(one: Any, other: Any, tolerance: float) -> bool:
    import numpy

    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.dtype.kind not in "fc":
        return bool(numpy.array_equal(one, other))
    return bool(numpy.allclose(one, other, rtol=tolerance, atol=tolerance, equal_nan=True))


def _same_tensors(one: Any, other: Any, tolerance: float) -> bool:
    import torch

    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if not one.is_floating_point() and not one.is_complex():
        return torch.equal(one, other)
    return torch.allclose(one, other, rtol=tolerance, atol=tolerance, equal_nan=True)
