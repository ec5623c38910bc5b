"""How long work tells how far it is: to the listener that it is given, else to the one that is set around it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol


class Listener(Protocol):
    """Hears how far long work is; `total` is None when that is not known."""

    def __call__(self, done: int, total: int | None, label: str) -> None:
        """Hear that `done` of `total` of what `label` names are there: "bytes of NAME" for downloads, "tracing, step" otherwise."""
        ...


def ignore_progress(done: int, total: int | None, label: str) -> None:
    """Hear and say nothing."""


_listener: ContextVar[Listener] = ContextVar("listener", default=ignore_progress)


@contextmanager
def heard_by(listener: Listener) -> Iterator[None]:
    """Let a listener hear of all long work that this thread does within the block."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def current_listener() -> Listener:
    """The listener set by the innermost `heard_by`, or one that says nothing."""
    return _listener.get()
