"""Modules brought to the dtype that they run in, one tensor at a time: no tensor is in memory in two dtypes for longer than its turn.

What comes out of a file is mapped, and a mapped page that was read stays with the process, beside the numbers in their new dtype. So
the pages of each tensor are given back once it was read: the system has them still, and reads them again should somebody look.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from modelgraft.engine.modules.pages import Stretch, give_back, spans_of_files

PIECE = 1 << 22  # numbers that are brought over at a time: 16 MB of float32, so that a large table is not there twice either


def cast(module: torch.nn.Module, dtype: torch.dtype | None) -> torch.nn.Module:
    """Bring the floating parameters and buffers to a dtype, and all to a place of their own; those that are one in memory stay one.

    dtype  None: each keeps its own
    """
    kept = [tensor for tensor in _tensors(module) if _is_to_move(tensor, dtype)]
    if not kept:
        return module
    turn = _Turn(dtype, _alone(map(span_of, kept)))
    del kept
    module._apply(turn)  # type: ignore[no-untyped-call]  # as Module.to does
    return module


def _tensors(module: torch.nn.Module) -> Iterable[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _dtype_of(tensor: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    return dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype


def _is_to_move(tensor: Tensor, dtype: torch.dtype | None) -> bool:
    """Whether it has another dtype, or begins within a number as other code sees memory: so it may lie in a file."""
    return tensor.dtype is not _dtype_of(tensor, dtype) or bool(_has_place(tensor) and tensor.data_ptr() % tensor.element_size())


def _has_place(tensor: Tensor) -> bool:
    """Whether its numbers lie in one memory: not of a tensor that is a shape alone, nor of a sparse one."""
    return not tensor.is_meta and tensor.layout is torch.strided


class _Turn:
    """What each tensor becomes, in its turn."""

    def __init__(self, dtype: torch.dtype | None, alone: frozenset[Stretch]) -> None:
        """alone: spans of memory that no other tensor reads a part of."""
        self.dtype, self._alone, self._files = dtype, alone, spans_of_files()
        self._made = dict[tuple[int, tuple[int, ...], tuple[int, ...], torch.dtype], Tensor]()

    def __call__(self, tensor: Tensor) -> Tensor:
        """The same numbers in the dtype."""
        if not _is_to_move(tensor, self.dtype):
            return tensor
        if not _has_place(tensor) or not tensor.numel():
            return tensor.to(_dtype_of(tensor, self.dtype))
        what = tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype
        if what not in self._made:
            self._made[what] = self._cast(tensor)
        return self._made[what]

    def _cast(self, tensor: Tensor) -> Tensor:
        if tensor.device.type != "cpu" or not tensor.is_contiguous() or span_of(tensor) not in self._alone:
            return tensor.to(_dtype_of(tensor, self.dtype), copy=True)
        made = torch.empty_like(tensor, dtype=_dtype_of(tensor, self.dtype), memory_format=torch.contiguous_format)
        for old, new in zip(tensor.view(-1).split(PIECE), made.view(-1).split(PIECE), strict=True):  # type: ignore[no-untyped-call]
            new.copy_(old)
            give_back(span_of(old), self._files)
        return made


def span_of(tensor: Tensor) -> Stretch:
    """Where its numbers lie; (0, 0) for one that lies nowhere on the host."""
    if tensor.device.type != "cpu" or not _has_place(tensor) or not tensor.numel():
        return 0, 0
    steps = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (steps + 1) * tensor.element_size()


def _alone(spans: Iterable[Stretch]) -> frozenset[Stretch]:
    """The spans that share no byte with another one; the same span twice is one."""
    found = sorted(set(spans) - {(0, 0)})
    shared, reached = set[Stretch](), (0, 0)
    for span in found:
        if span[0] < reached[1]:
            shared |= {span, reached}
        reached = max(reached, span, key=lambda one: one[1])
    return frozenset(found) - shared
