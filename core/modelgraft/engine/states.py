"""How far work is that is done beside the answers, as files that every process reads: who works holds a lock, and tells now and then."""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from modelgraft.sources.storage import locked

OLD_S = 86_400.0  # after a day nobody waits for what was told any more


@dataclass(frozen=True, slots=True)
class State:
    """How far a job is, as its worker told it last.

    done, total, label  as in `Progress`;  made  the work is done;  failed  why it was given up, in a line
    since     when it was begun, in seconds since 1970; 0 before;  process  the number of the process
    """

    done: float = 0
    total: float | None = None
    label: str = ""
    made: bool = False
    failed: str = ""
    since: float = 0.0
    process: int = 0

    @property
    def progress(self) -> str:
        """How far it is in words, such as "tracing for onnx, step 1 of 4, since 12 s"; "" before it has begun."""
        if not self.label:
            return ""
        total = "" if self.total is None else f" of {self.total:,}"
        return f"{self.label} {self.done:,}{total}, since {time.time() - self.since:.0f} s"

    @property
    def is_over(self) -> bool:
        """Whether nobody works on it any more, as far as it was told."""
        return self.made or bool(self.failed)


def read(folder: Path, key: str) -> State:
    """What was told last of a job; nothing where nobody has, or not in words that can be read."""
    try:
        facts = json.loads(_file(folder, key).read_text(encoding="utf-8"))
        return State(**facts)
    except (OSError, ValueError, TypeError):
        return State()


def unusable(folder: Path) -> str:
    """Why nothing can be written in a folder, which is made where it is missing; "" where it can be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return error.strerror or str(error)
    return "" if os.access(folder, os.W_OK) else "it is not for us to write there"


def write(folder: Path, key: str, state: State) -> None:
    """Tell how far a job is. On a disk without room nobody hears of it, and the work goes on."""
    file = _file(folder, key)
    aside = file.with_suffix(f".{os.getpid()}")
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps(asdict(state)), encoding="utf-8")
        aside.replace(file)


def forget(folder: Path, key: str) -> None:
    """Take away what was told of a job."""
    with contextlib.suppress(OSError):
        _file(folder, key).unlink()


def is_under_way(folder: Path, key: str) -> bool:
    """Whether a process works on a job now, or waits to; without file locks on this platform nobody knows, and it is not."""
    if not lock_of(folder, key).exists():
        return False
    try:
        with locked(lock_of(folder, key), waits=False) as is_free:
            return not is_free
    except OSError:
        return False


def lock_of(folder: Path, key: str) -> Path:
    """The lock that who works on a job holds."""
    return folder / f"{key}.lock"


def forget_old(folder: Path, *, seconds: float = OLD_S) -> None:
    """Take away what was told so long ago, but of work that somebody does."""
    for file in folder.glob("*"):
        with contextlib.suppress(OSError):
            is_old = file.suffix != ".lock" and time.time() - file.stat().st_mtime >= seconds
            if is_old and not is_under_way(folder, file.name.partition(".")[0]):
                file.unlink()


def _file(folder: Path, key: str) -> Path:
    return folder / f"{key}.json"
