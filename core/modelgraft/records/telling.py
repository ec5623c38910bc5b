"""Values in messages."""

from __future__ import annotations

from typing import Any

from modelgraft.records.absence import ABSENT


def describe(value: Any) -> str:
    """Name a value in a message: `float32[2 257 1024]`, `a list of 3`, `'cat.png'`."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{str(value.dtype).removeprefix('torch.')}[{' '.join(map(str, value.shape))}]"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    if value is ABSENT:
        return "ABSENT, which is what a route of a graph leaves out"
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else value[:37] + "...")
    return f"a {type(value).__name__}" if not isinstance(value, bool | int | float | type(None)) else repr(value)
