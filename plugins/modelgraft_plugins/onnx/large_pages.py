"""Weights that a session has packed, laid on pages of 2 MB: a token's step reads all of them once, and finds far fewer places.

Of pages of 4 kB a core remembers where a few MB lie, so that reading hundreds of MB looks up each page in tables, and how long that takes
differs by how scattered they lie. Linux (6.1 and newer) lays memory on large pages where it is asked to (MADV_COLLAPSE); bytes and
addresses stay what they are, and where it has none to give everything stays as it was. A thread asks, 1.4 ms a page, while the session is
used already: once it is there for as long as steps take to win back what asking costs, so that a process which answers once and ends pays
nothing, and a first answer shares no core with it; the time counts from where the making of an export has ended. Not where the system is
set to have no large pages ("never" in transparent_hugepage/enabled).
"""

from __future__ import annotations

import ctypes
import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Condition, Thread

from modelgraft.plugin import give_back_freed

SIZE = 2 << 20  # of a large page
SMALL = 4 << 10
ASKING_S = 1.4e-3  # that one takes; Zen 2
GAIN = 0.2  # of the time of steps that read all of them
MOSTLY = 7 / 8  # of a stretch that is in memory: the rest is taken as well
FROM_BYTES = 32 << 20  # of weights: less lies in caches
COLLAPSE = 25  # MADV_COLLAPSE, which Python does not name
SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
MAPS = Path("/proc/self/maps")
OF_MEMORY = re.compile(r"(\[heap\]|\[anon.*)?")  # what stands behind addresses that are of no file and no stack

_done = Condition()  # told when an export is made
_making = 0  # how many are made by now


def _begin_anew() -> None:
    """In a process that was forked: no export of the other one is made here."""
    global _done, _making
    _done, _making = Condition(), 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


@contextmanager
def making() -> Iterator[None]:
    """Within the block an export is made: sessions that are opened in it are compared first, and answer behind it."""
    global _making  # noqa: PLW0603 the cores are shared by all that this process does
    with _done:
        _making += 1
    try:
        yield
    finally:
        with _done:
            _making -= 1
            _done.notify_all()


@contextmanager
def packed(graph: Path | bytes) -> Iterator[None]:
    """Lay what is taken within on large pages, where the weights of a graph are large and the system has such pages."""
    if isinstance(graph, bytes) or _weights(graph) < FROM_BYTES or not _has_them():
        yield
        return
    give_back_freed()  # what was freed would count as taken before
    before = frozenset(places())
    yield
    give_back_freed()  # later, it would part large pages
    Thread(target=_lay_later, args=([place for place in places() if place not in before],), name="large pages", daemon=True).start()


def _lay_later(there: Sequence[int]) -> None:
    """Lay memory on large pages once it pays. A process that ends meanwhile does not wait for it."""
    with _done:
        _done.wait_for(lambda: not _making)
    time.sleep(len(there) * ASKING_S / GAIN)
    lay(there)


def places() -> Iterator[int]:
    """Where large pages could lie, by their first address: in memory of no file, mostly there; none where the system does not tell."""
    system, there = ctypes.CDLL(None), (ctypes.c_ubyte * (SIZE // SMALL))()
    for start, end in _stretches():
        for place in range(-(-start // SIZE) * SIZE, end // SIZE * SIZE, SIZE):
            if not system.mincore(ctypes.c_void_p(place), ctypes.c_size_t(SIZE), there) and sum(bytes(there)) >= MOSTLY * len(there):
                yield place


def lay(there: Iterable[int]) -> int:
    """Lay memory at such places on large pages; gives how many are so now."""
    system = ctypes.CDLL(None)
    return sum(not system.madvise(ctypes.c_void_p(place), ctypes.c_size_t(SIZE), COLLAPSE) for place in there)


def _stretches() -> Iterator[tuple[int, int]]:
    """Memory of no file that may be written to: the addresses of the first byte and of the one behind the last."""
    with suppress(OSError), MAPS.open(encoding="utf-8", errors="replace") as lines:
        for line in lines.readlines():  # start-end permissions offset device inode path
            place, permissions, _, _, inode, *named = line.split(None, 5)
            if permissions.startswith("rw") and inode == "0" and OF_MEMORY.fullmatch("".join(named).strip()):
                start, end = (int(side, 16) for side in place.split("-"))
                yield start, end


def _weights(graph: Path) -> int:
    """How many bytes lie beside a graph."""
    with suppress(OSError):
        return graph.with_name(f"{graph.name}.data").stat().st_size
    return 0


def _has_them() -> bool:
    with suppress(OSError):
        return "[never]" not in SETTING.read_text(encoding="ascii")
    return False
