"""Ctrl-C that is not forgotten: a library that is interrupted while it is imported may swallow it, or fail in its own way."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass(slots=True)
class Interrupts:
    """Whether Ctrl-C was pressed since the command began."""

    heard: bool = False

    def raise_if_heard(self) -> None:
        """Raise KeyboardInterrupt when Ctrl-C was pressed, whatever became of it."""
        if self.heard:
            raise KeyboardInterrupt

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note each Ctrl-C within the block and raise KeyboardInterrupt as Python does; nothing where Python does not hear it."""
        is_ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if not is_ours:
            yield
            return

        def take(number: int, frame: FrameType | None) -> None:
            self.heard = True
            signal.default_int_handler(number, frame)

        signal.signal(signal.SIGINT, take)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)
