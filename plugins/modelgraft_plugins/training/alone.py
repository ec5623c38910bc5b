"""One training at a time in a folder: another process there would write over its checkpoints."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelgraft.plugin import InputError, locked, option

LOCK = ".training"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder as long as the block lasts; a process that is killed lets go of it. Raises InputError when another one has it."""
    path = folder / LOCK
    with locked(path, waits=False) as is_ours:
        if not is_ours:
            who = path.read_text(encoding="utf-8").strip() if path.exists() else ""
            told = f"{folder} is being trained in by {who or 'another process'}"
            raise InputError(f"{told}; wait for it, stop it, or name another folder as {option('out')}")
        path.write_text(f"process {os.getpid()} on {platform.node()}\n", encoding="utf-8")
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                path.unlink()
