"""The file that the results of a map go into, while it is made: row by row, by one writer, never half.

    OUT.part      the rows that are there; its writer holds a lock on it
    OUT.part.job  what they are made of, and who writes them
    OUT, OUT.job  the same under their final names, when all rows are there

A process that is killed at any moment leaves a part from which a resumed map goes on: rows are looked at one by one, and what
is no whole row is made again with all that follows it.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from modelgraft.data.datasets import TABLE_ENDINGS
from modelgraft.data.jobs import MapJob, differences
from modelgraft.kernel.words.errors import InputError
from modelgraft.kernel.words.wording import option
from modelgraft.records.publishing import file_aside, publish
from modelgraft.records.record_type import Types
from modelgraft.records.writing import check_writable, no_texts, told_of

RESUME = option("resume")
SYNC_S = 1.0  # a loss of power may cost the rows of this time; a killed process costs none


class Shard:
    """OUT while it is made.

    done, failed  the rows that are there, and those of them that hold an error
    is_finished   nothing is to be done
    told          what a person must know of how it was found; "" for nothing
    """

    def __init__(self, out: Path, part: Path, file: IO[bytes], job: MapJob) -> None:
        self.out, self.part, self.done, self.failed, self.is_finished, self.told = out, part, 0, 0, False, ""
        self._file, self._job, self._synced = file, job, time.monotonic()

    def write(self, row: str, *, is_failed: bool) -> None:
        """Add one row. Raises InputError when the system refuses it."""
        with told_of(self.part):
            left = memoryview(row.encode() + b"\n")
            while left:
                left = left[self._file.write(left) :]
            if time.monotonic() - self._synced > SYNC_S:
                os.fsync(self._file.fileno())
                self._synced = time.monotonic()
        self.done, self.failed = self.done + 1, self.failed + is_failed

    def finish(self) -> None:
        """Give the part its final name."""
        with told_of(self.out):
            os.fsync(self._file.fileno())
            size = self._file.seek(0, os.SEEK_END)
            self.note({"rows": self.done, "failed": self.failed, "bytes": size})
            self.settle()

    def settle(self) -> None:
        """Give the files of a finished part their final names; each step may be the last before the process is killed."""
        publish(self.part, self.out)
        publish(_job_file(self.part), _job_file(self.out))
        self.is_finished = True

    def note(self, finished: dict[str, int] | None = None) -> None:
        """Write down what is made here, by whom, and whether it is finished."""
        who = {"pid": os.getpid(), "host": platform.node(), "since": datetime.now().astimezone().isoformat(timespec="seconds")}
        with file_aside(_job_file(self.part)) as aside:
            aside.write_text(json.dumps({"job": self._job, "writer": who, "finished": finished}, indent=1) + "\n", encoding="utf-8")


def refuse_other_rows(out: Path, types: Types) -> None:
    """Raise InputError when the ending of OUT promises something else than JSON lines."""
    if (suffix := out.suffix.lower()) in (*no_texts(types), *TABLE_ENDINGS, ".parquet"):
        raise InputError(f"output '{out}': the rows are JSON lines, and go into a file such as {out.stem}.jsonl; not {suffix}")


def work_files(out: Path) -> tuple[Path, ...]:
    """The files that a map into OUT writes."""
    part = out.with_name(f"{out.name}.part")
    return (out, part, _job_file(out), _job_file(part))


@contextmanager
def writing(out: Path, job: MapJob, *, is_resumed: bool) -> Iterator[Shard]:
    """Open OUT for the rows of a job; with `is_resumed`, behind those that a stopped map has left.

    Raises InputError when another process writes it, when what is there was made of something else, and when the system
    refuses to write.
    """
    out = Path(os.path.realpath(out))  # a link stays a link
    check_writable(out)
    part = out.with_name(f"{out.name}.part")
    with told_of(part):
        file = _open_alone(part, out)
    try:
        shard = Shard(out, part, file, job)
        with told_of(part):
            file = shard._file = _begin(shard, file, job, is_resumed=is_resumed)
        yield shard
        if not shard.is_finished:
            shard.finish()
    finally:
        _leave(part, file)


def _begin(shard: Shard, file: IO[bytes], job: MapJob, *, is_resumed: bool) -> IO[bytes]:
    """Look at what is there, and make the part ready for the next row."""
    size = file.seek(0, os.SEEK_END)
    if is_resumed and size == 0 and shard.out.exists():
        _look_at_whole(shard, job)
    elif is_resumed and size > 0:
        before = _read_job(_job_file(shard.part))
        if before is None:
            file = _set_aside(shard, file, "unknown", "nothing says what {part} was made of")
        else:
            _refuse_other(shard.part, before, job)
            _look_at_part(shard, file, before, size)
    elif size > 0:
        file = _set_aside(shard, file, "before", f"{{part}} holds rows of a stopped map, and {RESUME} would have gone on after them")
    if not shard.is_finished:
        file.seek(0, os.SEEK_END)
        shard.note()
    return file


def _look_at_whole(shard: Shard, job: MapJob) -> None:
    """Is OUT the finished result of this job? Raises InputError when it is that of another, or was changed since."""
    out = shard.out
    pending = _read_job(_job_file(shard.part))
    before, is_pending = (pending, True) if pending is not None and pending.get("finished") else (_read_job(_job_file(out)), False)
    if before is None:
        raise InputError(
            f"output '{out}' is there, and no '{_job_file(out).name}' beside it says what it was made of, so that it cannot be resumed; "
            f"without {RESUME} it is made anew"
        )
    _refuse_other(out, before, job)
    finished = before.get("finished") or {}
    if finished.get("bytes") != out.stat().st_size:
        raise InputError(
            f"output '{out}' was changed since it was finished: it had {finished.get('bytes')} bytes; without {RESUME} it is made anew"
        )
    if is_pending:
        publish(_job_file(shard.part), _job_file(out))
    shard.done, shard.failed, shard.is_finished = finished["rows"], finished["failed"], True


def _look_at_part(shard: Shard, file: IO[bytes], before: dict[str, Any], size: int) -> None:
    """Count the whole rows of a part and cut off what follows them."""
    wanted = list(shard._job["outputs"])
    end = 0
    file.seek(0)
    with open(file.fileno(), "rb", closefd=False) as lines:
        for line in lines:
            row = _row_of(line, wanted)
            if row is None:
                break
            end += len(line)
            shard.done, shard.failed = shard.done + 1, shard.failed + ("error" in row)
    finished = before.get("finished") or {}
    if finished.get("bytes") == size == end:
        shard.settle()
    elif end < size:
        shard.told = f"{shard.part} is whole up to row {shard.done}; the {size - end:,} bytes after it are no whole rows and are made again"
        file.truncate(end)


def _row_of(line: bytes, wanted: list[str]) -> dict[str, Any] | None:
    """A row that was written to its end, or None."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_row = line.endswith(b"\n") and isinstance(row, dict) and ("error" in row or all(name in row for name in wanted))
    return row if is_row else None


def _refuse_other(path: Path, before: dict[str, Any], job: MapJob) -> None:
    told = list(differences(before.get("job") or {}, job))
    if told:
        way_out = f"name another file, or leave out {RESUME} to make it anew"
        raise InputError(f"output '{path}' cannot be resumed, because it was made of something else: {'; '.join(told)}; {way_out}")


def _set_aside(shard: Shard, file: IO[bytes], ending: str, why: str) -> IO[bytes]:
    """Keep rows that this map does not go on after under another name, and begin with an empty part: they may have taken hours."""
    kept = shard.part.with_name(f"{shard.part.name}.{ending}")
    number = 1
    while kept.exists():
        number += 1
        kept = shard.part.with_name(f"{shard.part.name}.{ending}-{number}")
    publish(shard.part, kept)
    file.close()
    shard.told = f"{why.format(part=shard.part)}: it is kept as {kept.name}, and all rows are made"
    return _open_alone(shard.part, shard.out)


# -- files --------------------------------------------------------------------------------------------------------------


def _job_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.job")


def _read_job(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("job"), dict) else None


def _open_alone(part: Path, out: Path) -> IO[bytes]:
    """Open the part and hold its lock. Raises InputError when another has it, OSError when it cannot be opened."""
    while True:
        handle = os.open(part, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        file = os.fdopen(handle, "rb+", buffering=0)
        if not _lock(file):
            file.close()
            raise InputError(f"output '{out}' is being written by {_writer(part)}; wait for it, stop it, or name another file")
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), part.stat()):
                return file
        file.close()  # it got its final name between the two: there is a new one to open


def _lock(file: IO[bytes]) -> bool:
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


def _writer(part: Path) -> str:
    who = (_read_job(_job_file(part)) or {}).get("writer") or {}
    return f"process {who['pid']} on {who['host']} since {who['since']}" if {"pid", "host", "since"} <= who.keys() else "another process"


def _leave(part: Path, file: IO[bytes]) -> None:
    """Let go of the part; one without rows is taken away."""
    with contextlib.suppress(OSError):
        handle = os.fstat(file.fileno())
        if handle.st_size == 0 and part.exists() and os.path.samestat(handle, part.stat()):
            _job_file(part).unlink(missing_ok=True)
            part.unlink()
    file.close()
