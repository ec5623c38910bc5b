"""How what was loaded is freed: closed, taken out of circles of references, and its memory given back to the system."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
import weakref
from collections.abc import Callable, Iterable
from typing import Any

from modelgraft.engine.backend import Loaded
from modelgraft.kernel.words.guard import contained, said

WORTH_BYTES = 1 << 20  # below it, asking the allocator to give back what it has kept costs more than it gives


def close(what: str, call: Callable[[], None]) -> str:
    """Close something; gives "" or what it raised, so that what stands behind it is closed as well."""
    try:
        with contained():
            call()
    except Exception as error:  # noqa: BLE001 code of a plugin may raise anything while it closes
        return f"{what} could not be closed: {said(error)}"
    return ""


def marks_of(loaded: Loaded) -> list[weakref.ref[Any]]:
    """What tells whether a node is gone."""
    marks = []
    for part in (loaded.call, loaded.state):
        with contextlib.suppress(TypeError):  # of functions written in C there is none
            marks.append(weakref.ref(part))
    return marks


def give_back(device: str, size: int, marks: Iterable[weakref.ref[Any]]) -> None:
    """Give memory that nothing refers to any more back to the system.

    marks  of what should be gone: where it is not, it stands in a circle of references, which Python looks for now
    """
    if any(mark() is not None for mark in marks):
        gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and device.startswith("cuda") and torch.cuda.is_available():
        torch.cuda.empty_cache()
    if size >= WORTH_BYTES and sys.platform == "linux":
        trim: Any = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of the GNU library, which keeps what was freed
        if trim is not None:
            trim(0)
