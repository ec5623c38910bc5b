"""What a load leaves for later, because an answer need not wait for it: see `LoadContext.export`.

What makes exports, compares them with torch or tunes them asks here first; whoever loads says what is to be left.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field


class Left(Exception):
    """An export is not there, or not proven on this kind of processor, and is not to be made now. `key`: of the export."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the export {key} is left for later")
        self.key = key


@dataclass(slots=True)
class Leaving:
    """What is left, and what was.

    exports  nothing is exported;  tuning  nothing is tuned for this machine
    wanted   the key of the export that was asked for last;  untuned  the exports that were opened as they are
    """

    exports: bool = False
    tuning: bool = False
    wanted: str = ""
    untuned: list[str] = field(default_factory=list)


_leaving: ContextVar[Leaving | None] = ContextVar("leaving", default=None)


@contextmanager
def leaving(*, exports: bool, tuning: bool) -> Iterator[Leaving]:
    """Leave work for later within the block, and note which."""
    found = Leaving(exports, tuning)
    token = _leaving.set(found)
    try:
        yield found
    finally:
        _leaving.reset(token)


def ask_to_export(key: str) -> None:
    """Raise Left where an export is not to be made, or compared with torch, now."""
    found = _leaving.get()
    if found is not None:
        found.wanted = key
        if found.exports:
            raise Left(key)


def leaves_tuning(export: str, *, is_worth_it: bool) -> bool:
    """Whether a graph of an export is opened as it is; noted when tuning is worth a process of its own."""
    found = _leaving.get()
    if found is None or not found.tuning:
        return False
    if is_worth_it:
        found.untuned.append(export)
    return True
