"""Memory that is given back to the system: pages of mapped files, and what was freed.

A page of a file that was read stays with the process until the file is unmapped, or the page is given back: the system has it still, and
reads it again should somebody look. So weights that are gone through one by one need not all be there at once.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import sys
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock

PAGES = Path("/proc/self/pagemap")  # an entry for each page, as pagemap.rst of Linux has it:
ENTRY, TAKEN, OF_FILE = 8, 3 << 62, 1 << 61  # its bytes; bits of a page that is in memory or in swap, and of one that is as the file has it

Stretch = tuple[int, int]  # the addresses of the first byte and of the one behind the last

_lock = Lock()
_changing = 0  # how many threads are within `mappings_change`


def _begin_anew() -> None:
    """In a process that was forked: threads of the other one do not go on here, whatever they held."""
    global _lock, _changing
    _lock, _changing = Lock(), 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


def spans_of_files() -> Sequence[Stretch]:
    """Where files are mapped into this process, in order; nothing where the system does not tell."""
    return [span for span, _, _ in _mapped("maps")]


def untouched(only: Path | None = None) -> Sequence[Stretch]:
    """Where files are mapped of which no page was written to, in order: every one of their pages can be read again. only: of one file."""
    found = [span for span, _, name in _mapped("maps") if only is None or name == str(only)]
    try:
        return [span for span, is_written in zip(found, _are_written(found), strict=True) if not is_written]
    except OSError:  # some systems have this table for nobody
        return [span for span, written, name in _mapped("smaps") if written == 0 and (only is None or name == str(only))]


def _are_written(spans: Sequence[Stretch]) -> Sequence[bool]:
    """Of each mapped file, whether any page of it holds memory in the place of its bytes, as the table of pages says: 8 bytes of each.

    Asking "smaps" takes longer, and it counts no page that was written to and lies in swap.
    """
    import numpy

    if not spans:
        return []
    table, places = os.open(PAGES, os.O_RDONLY), [tuple(place // mmap.PAGESIZE * ENTRY for place in span) for span in spans]
    try:
        read = [os.pread(table, end - start, start) for start, end in places]
    finally:
        os.close(table)
    if [len(one) for one in read] != [end - start for start, end in places]:
        raise OSError("the table of pages ends early")
    entries = numpy.frombuffer(b"".join(read), numpy.uint64)
    written = (entries & TAKEN != 0) & (entries & OF_FILE == 0)
    starts = numpy.cumsum([0, *(len(one) // ENTRY for one in read[:-1])])
    found: list[bool] = numpy.logical_or.reduceat(written, starts).tolist()
    return found


def _mapped(table: str) -> Iterator[tuple[Stretch, int, str]]:
    """The files that are mapped, and in the table "smaps" how many kB of each were written to; nothing where there is no such table."""
    span, written, name = None, -1, ""
    with suppress(OSError, ValueError), Path("/proc/self", table).open(encoding="utf-8", errors="replace") as lines:
        for line in lines:  # start-end permissions offset device inode path;  in smaps, lines such as "Anonymous:   12 kB" follow
            place, *rest = line.split(None, 5)
            if place == "Anonymous:":
                written = int(rest[0])
            elif not place.endswith(":"):
                if span is not None:
                    yield span, written, name
                start, end = (int(side, 16) for side in place.split("-"))
                span, written, name = ((start, end) if rest[3] != "0" else None), -1, rest[4].strip() if len(rest) > 4 else ""
        if span is not None:
            yield span, written, name


def file_of(span: Stretch, files: Sequence[Stretch]) -> int | None:
    """In which of some mapped files, in order, a span lies, by its number; None: in none of them whole."""
    index = bisect_right(files, (span[0], sys.maxsize)) - 1
    return index if index >= 0 and span[1] <= files[index][1] else None


def give_back(span: Stretch, files: Sequence[Stretch]) -> None:
    """Let go of the whole pages of a span that lies in one mapped file. What was never written to is read again where it is asked for."""
    first, last = -(-span[0] // mmap.PAGESIZE) * mmap.PAGESIZE, span[1] // mmap.PAGESIZE * mmap.PAGESIZE
    if first >= last or file_of((first, last), files) is None:
        return
    ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), mmap.MADV_DONTNEED)


def give_back_files() -> None:
    """Let go of the pages of all files that are mapped, but for those that were written to; of none within `mappings_change`."""
    with _lock:
        spans = () if _changing else untouched()
        for span in spans:
            give_back(span, spans)


def give_back_file(path: Path) -> None:
    """Let go of the pages of one file that is mapped, where nobody has written to them; of none within `mappings_change`."""
    with _lock:
        spans = () if _changing else untouched(path.resolve())  # as the system names what is mapped by a link
        for span in spans:
            give_back(span, spans)


@contextmanager
def mappings_change() -> Iterator[None]:
    """Within it no thread lets go of pages of all files: a library maps and unmaps some without Python's lock.

    Where a file lay that was unmapped, memory of another kind may lie a moment later, and letting go of that loses what it holds.
    """
    global _changing  # noqa: PLW0603 there is one address space
    with _lock:
        _changing += 1
    try:
        yield
    finally:
        with _lock:
            _changing -= 1


def let_go() -> None:
    """Give back what this process holds and nobody needs: objects in circles, memory that was freed, pages of files.

    For the end of work that held much, where something else begins that will: the system gets memory of these kinds back late, or never.
    """
    gc.collect()
    give_back_freed()
    give_back_files()


def give_back_freed() -> None:
    """Give back memory that was freed: the C library keeps pieces for whoever wants some next."""
    with suppress(AttributeError, OSError, TypeError):  # a C library that is not glibc
        ctypes.CDLL(None).malloc_trim(0)
