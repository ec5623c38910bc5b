"""Where words go: answers to stdout, everything else to stderr, and with `--json` one document and nothing else on stdout."""

from __future__ import annotations

import contextlib
import errno
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, TextIO

from modelgraft.cli.beside import another
from modelgraft.kernel.words.errors import InputError, Problem
from modelgraft.records.json_text import json_text
from modelgraft.records.readers import for_command

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


class Unwritten(InputError):
    """An answer that stdout does not take: it is closed, or the disk behind it is full."""

    @classmethod
    def by(cls, error: OSError) -> Unwritten:
        """What is raised for what the system said."""
        why = "it is not open for writing" if error.errno == errno.EBADF else error.strerror
        return cls(f"the answer cannot be written to stdout: {why}")


@contextlib.contextmanager
def _told_of_stdout() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Unwritten.by(error) from error


@dataclass
class Screen:
    """The streams of a process.

    is_lines  what is answered with JSON goes into one line
    is_told   an error was told already, and is not told again
    """

    out: IO[str]
    err: TextIO
    is_json: bool
    is_lines: bool = False
    is_told: bool = False

    @classmethod
    def of_process(cls, *, is_json: bool, is_lines: bool = False) -> Screen:
        """Take stdout and stderr. A pipe gets UTF-8, a terminal what it can show, so that no letter stops a command."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError, OSError, ValueError):  # replaced by something that is no text file
                if stream.isatty():
                    stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # what the suppress is for
                else:
                    stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
        return cls(sys.stdout, another(sys.stderr), is_json, is_lines)

    @contextlib.contextmanager
    def only_answers(self) -> Iterator[None]:
        """Keep stdout free of what libraries print while they load and run."""
        with contextlib.redirect_stdout(another(self.err)):
            yield

    def say(self, text: str = "") -> None:
        """Answer with a line."""
        self.write(for_command(text) + "\n")

    def write(self, text: str) -> None:
        """Answer with a text as it is. Raises BrokenPipeError when the reader has left, Unwritten when there is no room."""
        with _told_of_stdout():
            self.out.write(text)

    def flush(self) -> None:
        """Send off what was answered; raises as `write` does."""
        with _told_of_stdout():
            self.out.flush()

    def note(self, text: str) -> None:
        """Say something beside the answer."""
        self.err.write(for_command(text) + "\n")

    def document(self, value: Any) -> None:
        """Answer with the one JSON document."""
        self.write(for_command(json_text(value) if self.is_lines else json_text(value, indent=1)) + "\n")

    # -- errors

    def error(self, text: str, *, kind: str = "usage", **facts: str) -> None:
        """Say what went wrong: on stderr, and as the document with `--json`."""
        if self.is_json:
            self.fail(kind, text, **facts)
        else:
            self.note(f"{self.paint('error', 'red', 'bold', on=self.err)}: {text}" if kind != "stopped" else text)

    def fail(self, kind: str, text: str, **facts: str) -> None:
        """Answer with the document of an error."""
        self._refuse({"kind": kind, "message": text, **{k: v for k, v in facts.items() if v}})

    def _refuse(self, error: Mapping[str, Any]) -> None:
        if self.is_told:
            return
        try:
            self.document({"ok": False, "error": error})
            self.flush()
        except Unwritten as unwritten:
            for message in dict.fromkeys((str(unwritten), error["message"])):  # once, where this is what went wrong
                self.note(f"error: {message}")

    def problems(self, problems: Sequence[Problem], *, kind: str) -> None:
        """Say every problem of a graph."""
        if self.is_json:
            message = "\n".join(problem.unworded for problem in problems)
            self._refuse({"kind": kind, "message": message, "problems": [p.as_json() for p in problems]})
            return
        for problem in problems:
            self.note(self.paint_problem(problem, on=self.err))

    def paint_problem(self, problem: Problem, *, on: IO[str]) -> str:
        """A problem as text, its code in colour on a terminal."""
        return problem.unworded.replace(f"  {problem.code}  ", f"  {self.paint(problem.code, 'red', on=on)}  ", 1)

    def paint(self, text: str, *colours: str, on: IO[str] | None = None) -> str:
        """Colour a word on a terminal; elsewhere it stays as it is."""
        stream = on or self.out
        return f"\033[{';'.join(_CODES[colour] for colour in colours)}m{text}\033[0m" if stream.isatty() else text

    # -- tables

    def table(
        self, heads: Sequence[str], rows: Iterable[Sequence[str]], *, right: frozenset[int] = frozenset(), last: bool = False
    ) -> None:
        """Answer with a table of aligned columns.

        right  columns of numbers;  last: the last row holds totals
        """
        cells = [list(map(str, row)) for row in rows]
        widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
        self.say(self.paint(_line(heads, widths, right), "bold"))
        for index, row in enumerate(cells):
            if last and index == len(cells) - 1:
                self.say(self.paint("  ".join("-" * width for width in widths), "dim"))
            self.say(_line(row, widths, right))


def _line(cells: Sequence[str], widths: Sequence[int], right: frozenset[int]) -> str:
    placed = (
        cell.rjust(width) if index in right else cell.ljust(width) for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join(placed).rstrip()
