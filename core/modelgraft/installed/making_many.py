"""While many values are made that all stay, Python need not look for garbage among them."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def making_many() -> Iterator[None]:
    """Keep the collector of cycles still within the block: it would walk again and again over what grows.

    What reading, checking and planning make stays, and next to nothing of it is a cycle; of a graph of 10,000 nodes the collector
    takes a third of the time. Blocks may lie in each other, and in threads: the collector works again when the first one that has
    stopped it ends. One that a user has switched off stays off.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
