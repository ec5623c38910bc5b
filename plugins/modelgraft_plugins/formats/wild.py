"""Readers of files from anywhere: whatever a file holds in place of what its format asks for is said as the damage that it is."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

# what code raises that was handed a text for a number, a list for a mapping, or a size of nothing
MISFITS = (TypeError, AttributeError, LookupError, ArithmeticError, RecursionError, struct.error)


def tells_damage(read: Callable[P, T]) -> Callable[P, T]:
    """Raise ValueError with the kind of misfit where a reader stumbles over what a file holds."""

    @wraps(read)
    def told(*args: P.args, **options: P.kwargs) -> T:
        try:
            return read(*args, **options)
        except MISFITS as error:
            raise ValueError(f"it does not hold what its format asks for: {type(error).__name__}: {error}") from error

    return told
