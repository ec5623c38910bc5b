"""One training at a time in a folder: another process there would write over its checkpoints."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from modelgraft.plugin import InputError, option

LOCK = ".training"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder as long as the block lasts; a process that is killed lets go of it. Raises InputError when another one has it."""
    folder.mkdir(parents=True, exist_ok=True)
    file = _held(folder / LOCK)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / LOCK).unlink()
        file.close()


def _held(path: Path) -> IO[str]:
    while True:
        file = path.open("a+", encoding="utf-8")
        if not _lock(file):
            file.seek(0)
            who = file.read().strip() or "another process"
            file.close()
            raise InputError(f"{path.parent} is being trained in by {who}; wait for it, stop it, or name another folder as {option('out')}")
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                file.truncate(0)
                file.write(f"process {os.getpid()} on {platform.node()}\n")
                file.flush()
                return file
        file.close()  # the one before it took it away between the two: there is a new one to open


def _lock(file: IO[str]) -> bool:
    """Whether the lock of a file is ours now; without file locks on this platform or disk it counts as ours."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some disks of a network have none
        return True
    return True
