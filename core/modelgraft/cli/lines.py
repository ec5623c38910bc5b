"""Lines of a terminal, of a pipe or of a file, one after the other into what does them: `modelgraft repl` and `modelgraft chat`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from modelgraft.cli.completing import completing
from modelgraft.cli.interrupts import TERMINATED
from modelgraft.kernel.words.errors import Cancelled

if TYPE_CHECKING:
    from modelgraft.cli.session import CliSession
    from modelgraft.kernel.words.graph import GraphInput

INVITATION = "> "


class TakesLines(Protocol):
    """What does lines.

    failed  how many could not be done;  is_over  no further line is wanted
    """

    session: CliSession
    failed: int
    is_over: bool

    def take(self, line: str) -> None:
        """Do one line, tell whatever is wrong with it, and count it as failed; a stop is raised."""

    def fail(self, text: str, kind: str, error: Exception) -> None:
        """Tell of a line that could not be done, and count it."""


def take_lines(
    taker: TakesLines,
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


def _take_all(taker: TakesLines, lines: Iterable[str]) -> None:
    for line in lines:
        taker.take(line.strip())
        if taker.is_over:
            return
    taker.is_over = True


def _typed(taker: TakesLines, commands: Sequence[str], inputs: Mapping[str, GraphInput]) -> Generator[str]:
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


def _piped(taker: TakesLines, last: Callable[[], Iterable[str]]) -> Generator[str]:
    """Lines of a pipe or a file, and then the last ones."""
    if sys.stdin is None:
        return
    for number, line in enumerate(sys.stdin.buffer, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            taker.fail(f"line {number} is no UTF-8 text: byte {error.start} is {line[error.start]:#04x}", "InputError", error)
    yield from last()
