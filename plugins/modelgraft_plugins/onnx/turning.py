"""Matrices that are turned as they are written: some rows at a time, in a buffer that lies in a processor's cache.

A checkpoint stores a linear layer as [out in], MatMul takes [in out], and an inner width may be widened by zeros (`widening.py`). With
whole matrices, each time in memory that was taken for it, ViT-B/16 was written in 0.68 to 0.85 s. By some rows at a time it takes 0.31 to
0.38, of which 0.17 are the system's, for 340 MB (Zen 3, one thread).
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from modelgraft_plugins.light_ir import ir
from modelgraft_plugins.onnx.constants import LYING, STORED

AT_ONCE = 1 << 20  # bytes: about what the second cache of a core holds
LEAST = 16  # rows: a line of a cache, of numbers that lie side by side in what is stored
KINDS = {ir.DataType.FLOAT: "float32", ir.DataType.FLOAT16: "float16"}

# Graph and Tensor of onnx_ir and of torch, which are not imported here; a stream of bytes, as onnx_ir calls it.
Graph = Any
Tensor = Any
Stream = Any


class Turned(ir.LazyTensor):
    """A tensor of a graph, [in out], and what is stored of it: written from there, without being made whole."""

    def __init__(self, whole: Tensor, stored: Sequence[Tensor]) -> None:
        """whole: as it is made for who asks for its numbers;  stored: float[out in] each, side by side; what is missing behind is zeros."""
        super().__init__(lambda: whole, dtype=whole.dtype, shape=whole.shape, name=whole.name)
        self.stored = stored

    def tofile(self, file: Stream) -> None:
        """Write it."""
        import torch

        kind: torch.dtype = getattr(torch, KINDS[self.dtype])
        rows, columns = self.shape.numpy()
        step = max(LEAST, AT_ONCE // (columns * kind.itemsize))
        room = torch.zeros(min(step, rows), columns, dtype=kind)
        with _by_one_core():
            for start in range(0, rows, step):
                count = min(start + step, rows) - start
                self._fill(room[:count], start)
                file.write(room[:count].numpy().data.cast("B"))

    def _fill(self, room: Tensor, start: int) -> None:
        """Put rows from one on into a buffer, float[rows columns], that holds earlier rows or zeros."""
        inner, place = self.stored[0].shape[1], 0
        count = max(0, min(inner - start, len(room)))
        for tensor in self.stored:
            lying = tensor.detach()[:, start : start + count].contiguous()
            room[:count, place : place + len(tensor)].copy_(lying.T)
            place += len(tensor)
        room[count:] = 0


@contextmanager
def _by_one_core() -> Iterator[None]:
    """Let torch copy with one thread of this one within the block: others wait long for pieces so small, and torch answers beside it.

    By OpenMP, whose number holds for the thread that sets it. Where torch has another library it stays.
    """
    try:
        system = _system()
        own = system.omp_get_max_threads()
        system.omp_set_num_threads(1)
    except (OSError, AttributeError, TypeError):
        yield
        return
    try:
        yield
    finally:
        system.omp_set_num_threads(own)


@cache
def _system() -> ctypes.CDLL:
    """What is loaded into this process: made once, it takes as long as some rows."""
    return ctypes.CDLL(None)


def turn_as_written(graph: Graph) -> None:
    """Let matrices of a graph be turned as they are written, where it is known what they are turned of."""
    for value in graph.initializers.values():
        stored = value.meta.get(STORED) or value.meta.get(LYING)
        if stored and isinstance(value.const_value, ir.LazyTensor) and value.const_value.dtype in KINDS:
            value.const_value = Turned(value.const_value, stored)
