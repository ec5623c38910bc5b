"""A file of records through a graph: JSON lines in, JSON lines out, in order.

Results go to `OUT.part`, one line as each is known, and the file gets its name when all are there. A run that is
stopped leaves the part; `--resume` counts its whole lines and goes on after them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from modelgraft.checkpoints.storage import publish
from modelgraft.cli.written import plain
from modelgraft.errors import InputError
from modelgraft.media import check_writable, told_of

if TYPE_CHECKING:
    from modelgraft.running.pipeline import Pipeline
    from modelgraft.running.result import Result


@dataclass(frozen=True, slots=True)
class Mapped:
    """How many records ran, failed, and were there already."""

    records: int
    failed: int
    skipped: int


def map_file(
    pipeline: Pipeline,
    data: Path,
    out: Path,
    *,
    outputs: Sequence[str] | None,
    batch_size: int,
    is_resumed: bool,
    note: Callable[[str], None],
) -> Mapped:
    """Run every record of a file and write one line for each. Raises InputError for files that cannot be read or written."""
    check_writable(out)
    part = out.with_name(out.name + ".part")
    with told_of(part):
        done = _whole_lines(part) if is_resumed else 0
    records = failed = 0
    with _open_data(data) as lines, _open_part(part, is_continued=done > 0) as written:
        todo = (record for number, record in enumerate(_read(lines, data)) if number >= done)
        for result in pipeline.map(todo, batch_size=batch_size, outputs=outputs):
            records += 1
            failed += result.error is not None
            if result.error is not None:
                note(f"record {done + records}: {result.error}")
            with told_of(part):
                written.write(json.dumps(_line(result), ensure_ascii=False).encode() + b"\n")
    with told_of(out):
        publish(part, out)
    return Mapped(records, failed, done)


def _whole_lines(part: Path) -> int:
    """Count the whole lines of a part and cut off a last one that was not written to its end."""
    if not part.exists():
        return 0
    with part.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        file.truncate(whole)
    return content.count(b"\n", 0, whole)


def _open_part(part: Path, *, is_continued: bool) -> IO[bytes]:
    with told_of(part):
        return part.open("ab" if is_continued else "wb", buffering=0)


def _open_data(data: Path) -> IO[str]:
    try:
        return data.open(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"the data '{data}' cannot be read: {error.strerror}") from error


def _read(lines: IO[str], data: Path) -> Iterator[dict[str, Any]]:
    try:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _record(line, f"{data.name}:{number}")
    except UnicodeDecodeError as error:
        raise InputError(f"the data '{data}' is no UTF-8 text: {error.reason}") from error


def _record(line: str, place: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise InputError(f"{place}: this line is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f'{place}: found {type(found).__name__}, wanted one record per line, such as {{"image": "cat.png"}}')
    return found


def _line(result: Result) -> dict[str, Any]:
    return {"error": str(result.error)} if result.error is not None else {name: plain(value) for name, value in result.outputs.items()}
