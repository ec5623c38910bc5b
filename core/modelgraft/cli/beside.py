"""Stderr as the place beside the answers: whatever becomes of it, the command goes on.

Notes that cannot be written, as on a full disk, are lost, and nothing else is. What plugins and libraries do to `sys.stdout` and
`sys.stderr` (close them, detach them, wrap their buffers once more) stays their own: every holder has a stream of its own on it.
"""

from __future__ import annotations

import io
import os

TYPE_CHECKING = False  # as in typing, which is not imported here

if TYPE_CHECKING:
    from typing import TextIO

    from _typeshed import ReadableBuffer


class _Forgiving(io.RawIOBase):
    """A file descriptor that takes everything."""

    def __init__(self, number: int) -> None:
        self._number = number

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(self._number)

    def fileno(self) -> int:
        return self._number

    def write(self, content: ReadableBuffer, /) -> int:
        try:
            return os.write(self._number, content)
        except OSError:
            return memoryview(content).nbytes


class _Lasting(io.BufferedWriter):
    """A buffer that nobody can close."""

    def close(self) -> None:
        self.flush()


def stream(number: int, *, encoding: str) -> TextIO:
    """A text stream on a file descriptor that is beside the answers, in the letters that a terminal can show."""
    errors = "replace" if os.isatty(number) else "backslashreplace"
    return io.TextIOWrapper(_Lasting(_Forgiving(number)), encoding=encoding, errors=errors, line_buffering=True)


def another(found: TextIO) -> TextIO:
    """Another stream to where one that `stream` made leads; one of others as it is."""
    buffer = getattr(found, "buffer", None)
    if not isinstance(buffer, _Lasting):
        return found
    return io.TextIOWrapper(buffer, encoding=found.encoding, errors=found.errors, line_buffering=True)
