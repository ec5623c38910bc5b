"""Values of one's own: copies of what can be written to, so that what two hold is never written by one of them.

A value of a type that is not known here is handed on as it is.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from modelgraft.records.absence import Absent
from modelgraft.records.record import Record

PLAIN = frozenset({type(None), bool, int, float, complex, str, bytes, Absent})  # cannot be written to

TensorCopy = Callable[[Any], Any]


def cloned(tensor: Any) -> Any:
    """A tensor in memory of its own that nothing else is tied to: no gradient, no expanded axis."""
    return tensor.detach().clone()


def twin(tensor: Any) -> Any:
    """A copy with the same strides, so that what is computed of it is equal to the last bit."""
    import torch

    plain = tensor.detach()
    if plain.layout != torch.strided or plain.is_contiguous():
        return plain.clone()
    kept = plain[tuple(slice(0, 1) if step == 0 else slice(None) for step in plain.stride())]
    try:
        made = torch.empty_strided(kept.shape, kept.stride(), dtype=plain.dtype, device=plain.device)
        return made.copy_(kept).expand(plain.shape)
    except RuntimeError:  # windows that overlap cannot be written one by one
        return plain.clone()


def own(value: Any, tensor: TensorCopy = cloned) -> Any:
    """Copy a value as far down as it can be written to: containers, tensors, arrays, pictures, records."""
    kind = type(value)
    if kind in PLAIN:
        return value
    if kind is list:
        return value.copy() if PLAIN.issuperset(map(type, value)) else [own(part, tensor) for part in value]
    if kind is dict:
        return {name: own(part, tensor) for name, part in value.items()}
    if kind is tuple:
        return value if PLAIN.issuperset(map(type, value)) else tuple(own(part, tensor) for part in value)
    if is_tensor(value):
        return tensor(value)
    if is_array(value) or is_picture(value):
        return value.copy()
    if isinstance(value, Record):
        return value.mapped(lambda part: own(part, tensor))
    return _own_kin(value, tensor)


def _own_kin(value: Any, tensor: TensorCopy) -> Any:
    """Copy what is a kind of list or mapping: an OrderedDict, a Counter."""
    if isinstance(value, dict):
        filled = copy.copy(value)
        filled.update({name: own(part, tensor) for name, part in value.items()})
        return filled
    if isinstance(value, list):
        listed = copy.copy(value)
        listed[:] = [own(part, tensor) for part in value]
        return listed
    if isinstance(value, set):
        return value.copy()
    if isinstance(value, tuple) and hasattr(value, "_fields"):  # a named one
        return type(value)(*(own(part, tensor) for part in value))
    return value


class Handed(Mapping[str, Any]):
    """Values that are copied when they are read, for who may never look at them."""

    __slots__ = ("_copied", "_values")

    def __init__(self, values: Mapping[str, Any], copied: Callable[[Any], Any] = own) -> None:
        self._values, self._copied = values, copied

    def __getitem__(self, name: str) -> Any:
        return self._copied(self._values[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Handed({', '.join(self._values)})"


def unusual_layout(tensor: Any) -> str:
    """How the numbers of a tensor lie where that is not one beside the other, such as "sparse_coo"; "" for what all code computes with."""
    if tensor.is_meta:
        return "meta, a shape without numbers"
    if tensor.is_nested:
        return "nested"
    return "" if tensor.layout is sys.modules["torch"].strided else str(tensor.layout).removeprefix("torch.").removeprefix("_")


def is_tensor(value: Any) -> bool:
    """A torch tensor; torch is not imported to find out."""
    return _is_of(value, "torch", "Tensor")


def is_array(value: Any) -> bool:
    """A numpy array; numpy is not imported to find out."""
    return _is_of(value, "numpy", "ndarray")


def is_picture(value: Any) -> bool:
    """A Pillow picture; Pillow is not imported to find out."""
    return _is_of(value, "PIL.Image", "Image")


def _is_of(value: Any, module: str, name: str) -> bool:
    """Of a class whose module was imported. Where another thread is still at it the class may not be there yet, nor anything of it."""
    return isinstance(value, getattr(sys.modules.get(module), name, ()))
