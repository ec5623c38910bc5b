"""What fails beside the command, where nobody can catch it: in a finalizer, an exit handler or a thread of a plugin. Told in one line."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import IO


def listen() -> None:
    """Take what Python would print a traceback of; with --debug it does."""
    if "--debug" not in sys.argv:
        tell = _teller(sys.stderr)
        sys.unraisablehook = lambda found: tell(found.exc_value)
        threading.excepthook = lambda found: (
            None if isinstance(found.exc_value, SystemExit) else tell(found.exc_value)
        )  # it ends a thread alone


def _teller(stream: IO[str]) -> Callable[[BaseException | None], None]:
    """What writes a line about an error: all that it needs is at hand, also while the interpreter is being taken down."""

    def tell(error: BaseException | None) -> None:
        try:
            line = _line(error) if error is not None else ""
        except Exception:  # noqa: BLE001 modules are gone by then
            line = type(error).__name__
        if line:
            stream.write(f"beside the command, something failed: {line}\n")

    return tell


def _line(error: BaseException) -> str:
    """The error and its place. Ctrl-C that comes where it cannot be raised is remembered elsewhere, and no news."""
    from modelgraft.kernel.words.guard import is_heard, place_of, said

    place = place_of(error)
    return "" if is_heard(error) else said(error) + (f" ({place})" if place is not None else "")
