"""A folder through a graph into an index: what is new or changed is encoded, the rest is kept, and nothing is ever half there."""

from __future__ import annotations

import io
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from modelgraft import Pipeline
from modelgraft.plugin import InputError, Reading, RecordType, digest_of, on_white
from modelgraft_plugins.retrieval.filed import Entry, Index, write_index
from modelgraft_plugins.retrieval.folders import Changes, Note, Seen, counted
from modelgraft_plugins.retrieval.header import About
from modelgraft_plugins.retrieval.models import Model
from modelgraft_plugins.retrieval.searching import Vectors, graph_of, recall_of, unit

KEPT_S = 60.0  # so much work may be lost when the process is killed
MOST_TOLD = 20  # files that are left out are told one by one; all of them stand in the index
LEAST_PX = 48  # of the longer side of a small picture
QUALITY = 82  # of small pictures as JPEG: about 5 kB each


@dataclass(frozen=True, slots=True)
class Task:
    """What is made: of which folder and medium, by which model, into which file.

    medium     the record type of the files;  input, output  of the graph
    thumbnail  the longest side of the small pictures in pixels; 0: none
    """

    root: Path
    out: Path
    medium: RecordType
    model: Model
    input: str
    output: str
    thumbnail: int
    is_approximate: bool
    batch_size: int


@dataclass(slots=True)
class Growing:
    """An index while it grows: its rows by their paths."""

    task: Task
    rows: dict[str, tuple[Entry, Vectors, bytes]] = field(default_factory=dict)
    left_out: dict[str, Entry] = field(default_factory=dict)

    @classmethod
    def of(cls, task: Task, before: Index | None, changes: Changes) -> Growing:
        """What stays of an index."""
        found = cls(task, left_out={entry.path: entry for entry in changes.bad})
        if before is not None:
            found.rows = {entry.path: (entry, before.vectors[row], before.thumbnails[row]) for row, entry in changes.kept}
        return found

    def index(self, *, is_whole: bool) -> Index:
        """The index as it is now; an approximate graph is made when all is there. Raises InputError where no file could be read."""
        if not self.rows:
            why = f", such as {next(iter(self.left_out.values())).why}" if self.left_out else ""
            raise InputError(f"the folder '{self.task.root}' has no file of type {self.task.medium.name} that could be read{why}")
        names = sorted(self.rows, key=str.casefold)
        vectors = np.stack([self.rows[name][1] for name in names])
        graph = graph_of(vectors) if is_whole and self.task.is_approximate else None
        recall = recall_of(vectors, graph) if graph is not None else None
        model, width = self.task.model.plain(), int(vectors.shape[1])
        about = About(width, len(names), model, str(self.task.root.resolve()), self.task.medium.name, recall)
        bad = [self.left_out[name] for name in sorted(self.left_out, key=str.casefold)]
        return Index(about, vectors, [self.rows[name][0] for name in names], [self.rows[name][2] for name in names], bad, graph)

    def write(self, *, is_whole: bool) -> Index:
        """Write it into its file, in one step."""
        found = self.index(is_whole=is_whole)
        write_index(found, self.task.out)
        return found


def encode(
    pipeline: Pipeline, growing: Growing, fresh: Sequence[tuple[Seen, str]], *, count: Callable[[int, int], None], note: Note
) -> None:
    """Encode files and add them. What was done so far is in the file every minute, and when this is stopped.

    Files are read in this thread, the next ones while others are in the encoder; each is decoded once.
    """
    task, waiting, written = growing.task, deque[_Read](), time.monotonic()
    failed = 0

    def records() -> Iterator[Mapping[str, Any] | InputError]:
        for seen, digest in fresh:
            one = _read(task, seen, digest)
            waiting.append(one)
            yield InputError(one.why) if one.why else {task.input: one.taken()}

    try:
        for done, result in enumerate(pipeline.map(records(), batch_size=task.batch_size, outputs=[task.output], ahead=2), 1):
            one = waiting.popleft()
            why = result.error.unworded if result.error is not None else one.add(growing, result.outputs[task.output])
            if why:
                failed += 1
                growing.left_out[one.seen.path] = Entry(one.seen.path, one.seen.stamp, one.digest, why)
                if failed <= MOST_TOLD:
                    note(f"left out: {one.seen.path}: {why}")
            count(done, failed)
            if time.monotonic() - written > KEPT_S and growing.rows:
                growing.write(is_whole=False)
                written = time.monotonic()
    except BaseException:
        if growing.rows:
            growing.write(is_whole=False)
            note(f"kept in {task.out}: {counted(len(growing.rows))}; the same command goes on after them")
        raise


@dataclass(slots=True)
class _Read:
    """A file that was read: what the graph takes of it, and its small picture."""

    seen: Seen
    digest: str
    value: Any = None  # Any: a record of the medium
    small: bytes = b""
    why: str = ""

    def taken(self) -> Any:
        """The record, which is not held any longer than the graph needs it."""
        value, self.value = self.value, None
        return value

    def add(self, growing: Growing, vector: Any) -> str:
        """Add what the graph gave; gives why not, or ""."""
        try:
            made = unit(vector.detach().cpu().float().numpy())[0]
        except InputError as error:
            return str(error)
        growing.rows[self.seen.path] = (Entry(self.seen.path, self.seen.stamp, self.digest), made, self.small)
        return ""


def _read(task: Task, seen: Seen, digest: str) -> _Read:
    """Read a file as the graph would, and make its small picture of the same pixels."""
    found = _Read(seen, digest)
    try:
        found.digest = digest or digest_of(seen.file)
        if task.medium.name != "image" or not task.thumbnail:
            found.value = str(seen.file)
            return found
        found.value = task.medium.read(str(seen.file), Reading("image"))
        found.small = _small(found.value, task.thumbnail)
    except InputError as error:
        found.why = error.unworded.removeprefix("image: ")
    except OSError as error:
        found.why = f"it cannot be read: {error.strerror or error}"
    except Exception as error:  # noqa: BLE001 a file may make its decoder fail in any way, MemoryError too: the other files live
        found.why = f"it cannot be read: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return found


def _small(picture: Any, side: int) -> bytes:
    """A small picture as JPEG; a strip that would be no pixel wide has one, and what is tiny is enlarged, so that it can be seen."""
    small = picture.convert("RGBA") if picture.mode in ("P", "PA", "LA") or "transparency" in picture.info else picture
    small = on_white(small.resize(_within(picture.size, side), reducing_gap=2.0) if max(picture.size) > side else small)
    if max(small.size) < min(LEAST_PX, side):
        factor = min(LEAST_PX, side) // max(small.size)
        small = small.resize((small.width * factor, small.height * factor), Image.Resampling.NEAREST)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue()


def _within(size: tuple[int, int], side: int) -> tuple[int, int]:
    scale = side / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
