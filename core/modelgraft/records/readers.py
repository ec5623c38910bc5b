"""Who reads what a run tells: Python, or a person at the command line; each has options in a form of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from modelgraft.kernel.words.wording import MARKED, for_python


def for_command(text: str) -> str:
    """The text with its options as the command line has them."""
    return MARKED.sub(lambda match: f"--{match[1].replace('_', '-')} {match[2] or ''}".rstrip(), text)


_READER: ContextVar[Callable[[str], str]] = ContextVar("reader", default=for_python)


def for_reader() -> Callable[[str], str]:
    """What words texts for whoever calls: Python, or within `at_command_line` a person there."""
    return _READER.get()


@contextmanager
def at_command_line() -> Iterator[None]:
    """Whoever opens a pipeline within the block is the command line."""
    token = _READER.set(for_command)
    try:
        yield
    finally:
        _READER.reset(token)
