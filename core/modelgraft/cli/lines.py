"""Lines of a terminal, of a pipe or of a file, one after the other into what does them: `modelgraft repl` and `modelgraft chat`."""

from __future__ import annotations

import contextlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelgraft.cli.completing import completing
from modelgraft.cli.interrupts import TERMINATED
from modelgraft.cli.screen import Unwritten
from modelgraft.kernel.words.errors import Cancelled, ModelgraftError, where_of
from modelgraft.kernel.words.guard import said
from modelgraft.records.json_text import json_text

if TYPE_CHECKING:
    from modelgraft.cli.session import CliSession
    from modelgraft.kernel.words.graph import GraphInput

INVITATION = "> "


class LineTaker(ABC):
    """What does lines. Whatever is wrong with one is told, and the next may come.

    failed  how many could not be done;  is_over  no further line is wanted;  is_json  answers are documents
    """

    session: CliSession
    is_json: bool
    failed: int
    is_over: bool

    @abstractmethod
    def do(self, line: str) -> None:
        """Do one line."""

    def take(self, line: str) -> None:
        """Do one line, tell whatever is wrong with it, and count it as failed; a stop is raised, and that nobody gets the answers."""
        try:
            self.do(line)
        except (KeyboardInterrupt, BrokenPipeError, Unwritten, Cancelled):
            raise
        except ModelgraftError as error:
            self.fail(error.unworded, type(error).__name__, error)
        except Exception as error:  # noqa: BLE001 a defect, or memory that does not suffice: what is loaded, and was said, stays
            self.fail(f"this is a defect of modelgraft or of a plugin: {said(error)}", "defect", error)

    def fail(self, text: str, kind: str, error: Exception) -> None:
        """Tell of a line that could not be done, as a document where answers are some, and count it."""
        self.failed += 1
        if not self.is_json:
            self.session.screen.error(text, kind=kind)
            return
        self.document({"ok": False, "error": {"kind": kind, "message": text, **where_of(error)}})

    def document(self, document: Mapping[str, Any]) -> None:
        """Print an answer as one line of JSON."""
        self.session.screen.say(json_text(document))
        self.session.screen.flush()


def take_lines(
    taker: LineTaker,
    *,
    greeting: str,
    stopped: str,
    commands: Sequence[str],
    inputs: Mapping[str, GraphInput] | None = None,
    last: Callable[[], Iterable[str]] = tuple,
) -> int:
    """Take lines until they end. Gives the exit code: of a terminal 0, else 1 when a line could not be done.

    greeting, stopped  what a terminal is told first, and after Ctrl-C, which ends a line there and all else elsewhere
    commands, inputs   what the tab key completes
    last               lines that the end of a pipe stands for
    """
    is_terminal = sys.stdin is not None and sys.stdin.isatty()
    screen, interrupts = taker.session.screen, taker.session.interrupts
    if is_terminal:
        screen.note(greeting)
    while not taker.is_over:
        try:
            with contextlib.closing(_typed(taker, commands, inputs or {}) if is_terminal else _piped(taker, last)) as lines:
                _take_all(taker, lines)
        except (KeyboardInterrupt, Cancelled):
            if not is_terminal or interrupts.code == TERMINATED:
                raise
            interrupts.forget()
            screen.note(stopped)
    return 0 if is_terminal else min(taker.failed, 1)


def _take_all(taker: LineTaker, lines: Iterable[str]) -> None:
    for line in lines:
        taker.take(line.strip())
        if taker.is_over:
            return
    taker.is_over = True


def _typed(taker: LineTaker, commands: Sequence[str], inputs: Mapping[str, GraphInput]) -> Generator[str]:
    """Lines of a terminal, with commands, names and files completed by the tab key."""
    screen = taker.session.screen
    with completing(inputs, commands):
        while True:
            try:
                with contextlib.redirect_stdout(sys.__stdout__ or sys.stderr):  # else Python reads without history and completion
                    line = input(INVITATION)
            except EOFError:
                screen.note("")
                return
            except UnicodeDecodeError as error:
                screen.error(f"this line is no UTF-8 text: {error.reason}")
                continue
            yield line


def _piped(taker: LineTaker, last: Callable[[], Iterable[str]]) -> Generator[str]:
    """Lines of a pipe or a file, and then the last ones."""
    if sys.stdin is None:
        return
    for number, line in enumerate(sys.stdin.buffer, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            taker.fail(f"line {number} is no UTF-8 text: byte {error.start} is {line[error.start]:#04x}", "InputError", error)
    yield from last()
