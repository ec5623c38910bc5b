"""Libraries that talk while they work are not heard, and the rest of the program is.

Streams, loggers and filters of warnings belong to the whole process; what is done to them here holds for one thread, so that a
program that exports in one thread still prints, logs and warns in the others.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

_ONE_AT_A_TIME = threading.RLock()  # streams are put back in the order in which they were taken


class _Stream:
    """A stream that keeps from the screen what one thread writes, and gives it to `heard`."""

    def __init__(self, stream: Any, heard: list[str]) -> None:
        self._stream, self._heard, self._owner = stream, heard, threading.get_ident()

    def write(self, text: str) -> int:
        if threading.get_ident() != self._owner:
            return int(self._stream.write(text))
        self._heard.append(text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Mine:
    """What a filter of warnings matches a text with: any text, in one thread."""

    def __init__(self) -> None:
        self._owner = threading.get_ident()

    def match(self, _text: str) -> bool:
        return threading.get_ident() == self._owner


@contextlib.contextmanager
def muted() -> Iterator[list[str]]:
    """Keep what this thread prints, warns of, and logs as no more than an error from the user; gives what it prints. Errors are raised."""
    heard: list[str] = []
    out, err = _Stream(sys.stdout, heard), _Stream(sys.stderr, heard)
    with _ONE_AT_A_TIME, _no_warnings(), _no_records(logging.ERROR), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield heard


@contextlib.contextmanager
def _no_warnings() -> Iterator[None]:
    entry: Any = ("ignore", _Mine(), Warning, None, 0)  # Any: made by hand, as none of its functions takes a matcher
    lists = [warnings.filters]
    warnings.filters.insert(0, entry)  # type: ignore[attr-defined]
    _forget_warnings()
    try:
        yield
    finally:
        for filters in (*lists, warnings.filters):  # another thread may have put its own list there
            if entry in filters:
                filters.remove(entry)  # type: ignore[attr-defined]
        _forget_warnings()


def _forget_warnings() -> None:
    """Tell Python that the filters have changed, as its own functions do."""
    changed = getattr(warnings, "_filters_mutated", None)
    if changed is not None:
        changed()


@contextlib.contextmanager
def _no_records(level: int) -> Iterator[None]:
    owner = threading.get_ident()

    def others(record: logging.LogRecord) -> bool:
        return record.thread != owner or record.levelno > level

    loggers = [logging.root, *(one for one in logging.root.manager.loggerDict.values() if isinstance(one, logging.Logger))]
    handlers = {handler for logger in loggers for handler in logger.handlers} | ({logging.lastResort} if logging.lastResort else set())
    for handler in handlers:
        handler.addFilter(others)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(others)
