"""Stdout as the place of answers: what the system does not take of one is told, whoever was writing."""

from __future__ import annotations

import io
import os
import select

TYPE_CHECKING = False  # as in typing, which is not imported here

if TYPE_CHECKING:
    from typing import IO, Any

    from _typeshed import ReadableBuffer


class _Answers(io.FileIO):
    """A file descriptor that tells what was wrong: typer and rich write to it too, and would end commands with a defect.

    Where it does not wait for its reader, as one that is shared with a program which has said so, the reader is waited for here.
    """

    def write(self, content: ReadableBuffer, /) -> int:
        try:
            while (written := super().write(content)) is None:
                select.select([], [self], [])
            return written
        except BrokenPipeError:  # the reader, such as `head`, has seen enough
            raise
        except OSError as error:
            from modelgraft.cli.screen import Unwritten  # not before the signals are heard

            raise Unwritten.by(error) from error


def answers(number: int, *, encoding: str) -> IO[str]:
    """A text stream of it: line by line to a terminal, in the letters that it can show; elsewhere UTF-8.

    number    the file descriptor; it is closed with the stream
    encoding  that of a terminal
    """
    if os.isatty(number):
        return _text(number, encoding=encoding, errors="replace", line_buffering=True)
    return _text(number, encoding="utf-8", errors="backslashreplace")


def _text(number: int, **how: Any) -> IO[str]:  # Any: what TextIOWrapper takes
    return io.TextIOWrapper(io.BufferedWriter(_Answers(number, "wb")), **how)
