"""What is made once, kept in the cache, and proven whole before it is used; what is broken is made again, and that is said.

    folder = keep(folder, write, lock=..., what="w.gguf as it was converted")

Several processes may make, use and delete the same folder: one at a time makes it, who loads from it holds it until the load
ends, and what is held is not deleted.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from modelgraft.kernel.words.errors import Problem, SourceError
from modelgraft.sources import seals
from modelgraft.sources.storage import cache_in_use, folder_aside, lock_folder, locked

MOST_TRIES = 10  # to hold what was made before another process deletes it

LOG = logging.getLogger("modelgraft")


@dataclass
class Load:
    """What is noted while something is loaded: what a user must know, and the folders that must stay until it ends."""

    remarks: list[str] = field(default_factory=list)
    held: ExitStack = field(default_factory=ExitStack)


_load: ContextVar[Load | None] = ContextVar("load", default=None)


@contextmanager
def loading() -> Iterator[list[str]]:
    """Gather what a user must know about what is kept, and hold what is used of it, within the block; in this thread."""
    found = Load()
    token = _load.set(found)
    try:
        with found.held:
            yield found.remarks
    finally:
        _load.reset(token)


def remark(text: str) -> None:
    """Say something about what is kept: to the load around it, else to the log."""
    load = _load.get()
    if load is None:
        LOG.warning("%s", text)
    elif text not in load.remarks:
        load.remarks.append(text)


def hold(folder: Path) -> bool:
    """Keep others from deleting a folder until the load around it ends; says whether it is there.

    Without a load, or file locks, others may delete it all the same.
    """
    load = _load.get()
    handle = lock_folder(folder, is_shared=True, waits=True) if load is not None else None
    if load is None or handle is None:
        return os.path.isdir(folder)  # noqa: PTH112 that of pathlib raises where nobody may look
    load.held.callback(os.close, handle)
    try:
        return os.path.samestat(os.fstat(handle), folder.stat())  # while this waited, another may have deleted or replaced it
    except OSError:
        return False


def delete(path: Path) -> bool:
    """Delete a kept file or folder unless somebody loads from it; says whether it is gone."""
    if not path.is_dir():
        with contextlib.suppress(OSError):
            path.unlink()
            seals.seal_of(path).unlink(missing_ok=True)
        return not path.exists()
    handle = lock_folder(path)
    if handle is None and path.exists() and os.name == "posix":
        return False
    shutil.rmtree(path, ignore_errors=True)
    if handle is not None:
        os.close(handle)
    return not path.exists()


def keep(folder: Path, write: Callable[[Path], None], *, lock: Path, what: str) -> Path:
    """Give a kept folder, whole; made, or made again, by one process at a time.

    write  fills an empty folder
    what   names it in what is said when it has to be made again

    Raises what `write` raises, SourceError `cache-failed`.
    """
    for _ in range(MOST_TRIES):
        if hold(folder) and not seals.complaint(folder):
            return folder
        with cache_in_use(), locked(lock):
            is_held = hold(folder)
            if is_held and not (found := seals.complaint(folder)):
                return folder  # another process was faster
            if is_held:
                remark(f"{what} was kept and is broken ({found}): it is made again")
            _make(folder, write)
            if hold(folder):
                return folder
    raise SourceError(Problem("cache-failed", f"{what} is deleted by another process again and again: {folder}"))


def _make(folder: Path, write: Callable[[Path], None]) -> None:
    for left in folder.parent.glob(f".{folder.name}.*"):  # of a process that was killed: this one holds the lock
        shutil.rmtree(left, ignore_errors=True)
    with folder_aside(folder) as aside:
        write(aside)
        seals.seal(aside)
