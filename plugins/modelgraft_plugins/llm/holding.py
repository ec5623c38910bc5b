"""Where an exported decoder lays its memory: on the host in arrays of numpy, on a device in tensors of torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy

from modelgraft.plugin import Graph, Slot, as_array, as_tensor
from modelgraft_plugins.llm.sizes import named

if TYPE_CHECKING:
    from torch import Tensor

Held = Any  # memory of one of the two kinds: they are written to and cut in the same way
ALIGNED = 64  # bytes, as torch lays its tensors: operators that add up begin in the same place then, and sums are the same


class Holding(Protocol):
    """Makes memory of one kind."""

    def empty(self, shape: Sequence[int], dtype: str) -> Held:
        """Memory for numbers that are written before they are read."""
        ...

    def zeros(self, shape: Sequence[int], dtype: str) -> Held:
        """Memory that holds 0."""
        ...

    def put(self, array: Any) -> Held:
        """An array that was made on the host, where the graph reads it."""
        ...

    def taken(self, value: Any) -> Held:
        """What others have made, an array or a tensor, where the graph reads it."""
        ...

    def fed(self, value: Any, slot: Slot) -> Held:
        """What others have made, in the type and the place that a graph reads it in, without gaps."""
        ...

    def rows(self, held: Held, numbers: Sequence[int]) -> Held:
        """Some rows in memory of their own."""
        ...


def holding_of(graph: Graph) -> Holding:
    """That of a graph: a device has an order of its own, which is torch's."""
    return OnDevice(graph.device) if graph.is_ordered else OnHost()


class OnHost:
    """Arrays."""

    def empty(self, shape: Sequence[int], dtype: str) -> Held:
        """See Holding."""
        return _laid(numpy.empty, shape, dtype)

    def zeros(self, shape: Sequence[int], dtype: str) -> Held:
        """See Holding."""
        return _laid(numpy.zeros, shape, dtype)

    def put(self, array: Any) -> Held:
        """See Holding."""
        return numpy.ascontiguousarray(array)

    def taken(self, value: Any) -> Held:
        """See Holding."""
        return numpy.ascontiguousarray(as_array(value))

    def fed(self, value: Any, slot: Slot) -> Held:
        """See Holding."""
        found = as_array(value)
        if found.dtype == slot.dtype and found.flags.c_contiguous:
            return found
        made = self.empty(found.shape, slot.dtype)
        made[...] = found
        return made

    def rows(self, held: Held, numbers: Sequence[int]) -> Held:
        """See Holding."""
        made = self.empty((len(numbers), *held.shape[1:]), held.dtype)
        return held.take(numbers, axis=0, out=made, mode="clip")  # "raise" takes a second copy


class OnDevice:
    """Tensors. It may be the host too, where a graph has an order as a device has one."""

    def __init__(self, device: str) -> None:
        self.device = device

    def empty(self, shape: Sequence[int], dtype: str) -> Held:
        """See Holding."""
        import torch

        return torch.empty(tuple(shape), dtype=getattr(torch, named(dtype)), device=self.device)

    def zeros(self, shape: Sequence[int], dtype: str) -> Held:
        """See Holding."""
        return self.empty(shape, dtype).zero_()

    def put(self, array: Any) -> Held:
        """See Holding."""
        return self.taken(numpy.ascontiguousarray(array))

    def taken(self, value: Any) -> Held:
        """See Holding."""
        tensor: Tensor = as_tensor(value)
        return tensor.to(self.device).contiguous()

    def fed(self, value: Any, slot: Slot) -> Held:
        """See Holding."""
        import torch

        tensor: Tensor = as_tensor(value)
        return tensor.to(slot.device, getattr(torch, slot.dtype)).contiguous()

    def rows(self, held: Held, numbers: Sequence[int]) -> Held:
        """See Holding."""
        return held.index_select(0, self.put(numpy.array(numbers, dtype=numpy.int64)))


def ids_of(tokens: Any) -> list[Any]:
    """Tokens or rows as numbers: those of an array or a tensor, or what is a list already."""
    return tokens.tolist() if hasattr(tokens, "tolist") else list(tokens)


def _laid(make: Any, shape: Sequence[int], dtype: Any) -> Any:
    """Memory that begins at a multiple of ALIGNED."""
    kind = numpy.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    whole = make(size + ALIGNED, dtype=numpy.uint8)
    aside = -whole.ctypes.data % ALIGNED
    return whole[aside : aside + size].view(kind).reshape(shape)
