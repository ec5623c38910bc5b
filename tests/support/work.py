"""Work without a clock: how many functions are called. The same on a fast, a slow and a busy machine."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def calls_of(subject: Callable[[], Any]) -> int:
    """How many functions, of Python and of C, a call of it calls in this thread."""
    count = 0

    def heard(frame: Any, event: str, arg: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(heard)
    try:
        subject()
    finally:
        sys.setprofile(before)
    return count


def grows(subject: Callable[[int], Callable[[], Any]], size: int, *, by: int = 10) -> float:
    """How many times as many calls something takes that is `by` times as large: about `by` where its work is linear."""
    small, large = subject(size), subject(size * by)
    return calls_of(large) / calls_of(small)
