"""Files of numbers that are mapped: what was read of them is given back to the system, so that memory does not grow with their records."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

MOST_BYTES = 16 << 20  # that are held of a file: the batches of some steps, and little beside a process with torch
AROUND = 64 << 10  # that a system maps at once around what is read, where it lies in its own memory
DONT_NEED = getattr(mmap, "MADV_DONTNEED", None)  # None: this system gives pages back when it wants


class Mapped:
    """The numbers of a file as an array that is never held as a whole."""

    def __init__(self, file: Path | BinaryIO, dtype: Any, shape: tuple[int, ...] | None = None) -> None:  # Any: as numpy takes it
        """shape: None for all numbers of the file in a row."""
        size = file.stat().st_size if isinstance(file, Path) else None
        self.values: Any = np.zeros(0, dtype) if size == 0 else np.memmap(file, dtype, mode="r", shape=shape)
        self._held = 0

    def note(self, rows: int, row_bytes: int) -> None:
        """Hear that rows were read, copied by now; give back what is held where it is much."""
        self._held += rows * (row_bytes + AROUND)
        if self._held > MOST_BYTES and DONT_NEED is not None and isinstance(self.values, np.memmap):
            self._held = 0
            self.values._mmap.madvise(DONT_NEED)  # type: ignore[attr-defined]  # the pages stay in the system's own memory, as long as there is room
