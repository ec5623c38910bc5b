"""Signals that stop a command: heard at any moment, told in one line, never as a traceback.

A library that is interrupted while it is imported may swallow the interrupt, or fail in its own way. So a process that is
ours is left at once while it has nothing to lose; while a command is at work the signal is KeyboardInterrupt, as in any
Python program, and it is remembered that it came. This module is imported first of all and imports next to nothing.
"""

from __future__ import annotations

import signal

TYPE_CHECKING = False  # as in typing, which is not imported here

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

STOPPED, TERMINATED = 130, 143  # exit codes as shells say them: 128 and the number of the signal
AGAIN_S = 1.0  # one Ctrl-C may arrive twice, from the terminal and from a parent; a second one after this is meant


class Interrupts:
    """Whether the command was asked to stop since it began.

    leave  ends the process at once with an exit code; None where the process is not ours
    clear  what is called before that: it takes away what nobody would need, such as an empty folder
    """

    def __init__(self, leave: Callable[[int], None] | None = None) -> None:
        self.heard = False
        self.code = STOPPED
        self.clear: list[Callable[[], None]] = []
        self._leave = leave
        self.is_at_work = leave is None
        self._since = 0.0

    def listen(self) -> None:
        """Hear SIGINT and SIGTERM until the process ends; one that its parent has it ignore stays ignored."""
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._take)

    def ignore(self) -> None:
        """Hear nothing any more: the answer is there, and Python would die of the signal while it takes itself down."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)

    def raise_if_heard(self) -> None:
        """Raise KeyboardInterrupt when a signal came, whatever became of it."""
        if self.heard:
            raise KeyboardInterrupt

    def forget(self) -> None:
        """Go on as if none had come: what it stopped was told."""
        self.heard = False

    def at_work(self) -> _While:
        """Within the block something may be half done: a signal is KeyboardInterrupt, so that it is cleared away."""
        return _While(self, is_at_work=True)

    def at_once(self) -> _While:
        """Within the block nothing is half done: a signal ends a process of ours on the spot; elsewhere as in `at_work`.

        Raises KeyboardInterrupt at the end when one came and was swallowed, as torch does with one that comes while it is imported.
        """
        return _While(self, is_at_work=self._leave is None)

    def noted(self) -> _Noted:
        """In a process of others: note each Ctrl-C within the block and raise KeyboardInterrupt as Python does.

        Nothing where Python does not hear it, or `listen` does.
        """
        return _Noted(self._take)

    def _take(self, number: int, frame: FrameType | None) -> None:
        self.code = TERMINATED if number == signal.SIGTERM else STOPPED
        from time import monotonic

        is_repeated = self.heard and monotonic() - self._since > AGAIN_S
        if not self.heard:
            self.heard, self._since = True, monotonic()
        if self._leave is not None and (is_repeated or not self.is_at_work):
            for clear in self.clear:
                clear()
            self._leave(self.code)
        signal.default_int_handler(number, frame)


class _While:
    """How a signal is taken while a block lasts."""

    def __init__(self, interrupts: Interrupts, *, is_at_work: bool) -> None:
        self._interrupts, self._is_at_work, self._before = interrupts, is_at_work, False

    def __enter__(self) -> None:
        self._before, self._interrupts.is_at_work = self._interrupts.is_at_work, self._is_at_work

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._interrupts.is_at_work = self._before
        if kind is None and not self._is_at_work:
            self._interrupts.raise_if_heard()


class _Noted:
    """A handler of Ctrl-C in place of Python's own while a block lasts."""

    def __init__(self, take: Callable[[int, FrameType | None], None]) -> None:
        self._take, self._is_ours = take, False

    def __enter__(self) -> None:
        import threading

        is_main = threading.current_thread() is threading.main_thread()
        self._is_ours = is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if self._is_ours:
            signal.signal(signal.SIGINT, self._take)

    def __exit__(self, *error: object) -> None:
        if self._is_ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
