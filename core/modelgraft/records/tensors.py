"""Tensors that a user gives: taken from torch, numpy or lists of numbers, in memory of their own; no number is changed."""

from __future__ import annotations

from typing import Any

from modelgraft.kernel.words.errors import InputError
from modelgraft.kernel.words.ports import DTYPE_FAMILIES, Tensor
from modelgraft.records.arrays import as_tensor
from modelgraft.records.opening import reason
from modelgraft.records.owning import cloned
from modelgraft.records.telling import describe


def read_tensor(label: str, kind: Tensor, value: Any) -> Any:
    """Take a tensor, an array or nested lists of numbers. Lists become what the port takes where every number stays what it is.

    Raises InputError for what is none of these, or does not fit the port.
    """
    import numpy
    import torch

    if isinstance(value, numpy.ndarray | numpy.generic):
        found = _of_array(label, kind, numpy.asanyarray(value))
    elif isinstance(value, list | tuple | bool | int | float):
        found = _of_numbers(label, kind, value)
    elif isinstance(value, torch.Tensor):
        if value.layout != torch.strided or value.is_meta or value.is_quantized:
            raise InputError(f"{label}: found a {value.layout} tensor on {value.device}, wanted {kind}: a plain tensor with its numbers")
        found = cloned(value)
    else:
        raise InputError(f"{label}: found {describe(value)}, wanted {kind}: a tensor, an array or lists of numbers")
    wrong = tensor_mismatch(kind, found)
    if wrong:
        raise InputError(f"{label}: found {describe(value)}, wanted {kind}: {wrong}{_as_batch(kind, found)}")
    if kind.axes and kind.axes[0] is not None and kind.axes[0].symbol == "batch" and not len(found):
        raise InputError(f"{label}: the batch is empty: found {describe(value)}; wanted: at least one record")
    return found


def _as_batch(kind: Tensor, found: Any) -> str:
    """The way out for one record that stands alone where a batch is wanted; "" for what is wrong in another way."""
    first = kind.axes[0] if kind.axes else None
    is_alone = first is not None and first.symbol == "batch" and not tensor_mismatch(kind, found[None])
    return "; put one record into brackets of its own, a batch of one: [[1, 2]] in place of [1, 2]" if is_alone else ""


def _of_array(label: str, kind: Tensor, array: Any) -> Any:
    """A copy of an array, in the byte order of this machine."""
    import numpy

    if isinstance(array, numpy.ma.MaskedArray):
        raise InputError(f"{label}: found a masked array, wanted {kind}: fill what is masked first, array.filled(0)")
    try:
        return as_tensor(numpy.array(array, dtype=array.dtype.newbyteorder("="), order="C"))
    except TypeError as error:
        raise InputError(f"{label}: found {describe(array)}, wanted {kind}: torch has no such numbers") from error


def _of_numbers(label: str, kind: Tensor, value: Any) -> Any:
    import torch

    try:
        found = torch.tensor(value)
        exact = torch.tensor(value, dtype=torch.float64) if found.dtype == torch.get_default_dtype() else None
    except (TypeError, ValueError, RuntimeError, OverflowError, RecursionError) as error:
        raise InputError(f"{label}: found {describe(value)}, wanted numbers for {kind}: {reason(error)}") from error
    if exact is not None and bool((found.isinf() & ~exact.isinf()).any()):
        raise InputError(f"{label}: holds a number beyond what {str(found.dtype).removeprefix('torch.')} holds, wanted {kind}")
    return _in_dtype(kind, found)


def _in_dtype(kind: Tensor, found: Any) -> Any:
    """Numbers of a list have no dtype of their own: whole ones are floats, and all are in the one dtype of a port, if that is exact."""
    import torch

    name = str(found.dtype).removeprefix("torch.")
    if name in DTYPE_FAMILIES[kind.dtype] or found.dtype == torch.bool:
        return found
    is_one = len(DTYPE_FAMILIES[kind.dtype]) == 1
    wanted = getattr(torch, kind.dtype) if is_one else torch.get_default_dtype() if kind.dtype == "float" else None
    if wanted is None or wanted == torch.bool or (found.is_floating_point() and not wanted.is_floating_point):
        return found
    made = found.to(wanted)
    is_exact = found.is_floating_point() or bool((made.to(found.dtype) == found).all())
    return made if is_exact else found


def tensor_mismatch(kind: Tensor, value: Any) -> str:
    """Say in a few words why a tensor is not of this type, or give an empty string when it is."""
    dtype = str(value.dtype).removeprefix("torch.")
    if dtype not in DTYPE_FAMILIES[kind.dtype]:
        return f"the dtype is {dtype}, not {' or '.join(sorted(DTYPE_FAMILIES[kind.dtype]))}"
    fixed = [axis for axis in kind.axes if axis is not None]
    if value.ndim != len(fixed) and (len(fixed) == len(kind.axes) or value.ndim < len(fixed)):
        return f"it has {value.ndim} {'axis' if value.ndim == 1 else 'axes'}, not {len(fixed)}"
    if len(fixed) != len(kind.axes):
        return ""
    wrong = [(axis, size) for axis, size in zip(fixed, value.shape, strict=True) if axis.size not in (None, size)]
    return f"an axis is {wrong[0][1]} long, not {wrong[0][0]}" if wrong else ""
