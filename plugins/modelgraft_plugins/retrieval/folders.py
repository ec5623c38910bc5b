"""A folder of files as it stands now, beside what an index knows of it: what is new, what has changed, what is gone."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from modelgraft.plugin import InputError, digest_of, stamp_of
from modelgraft_plugins.retrieval.filed import Entry

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Seen:
    """A file of the folder: its path below it, the file, and its stamp."""

    path: str
    file: Path
    stamp: str


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to be done.

    kept   rows of the index that stay, each with its file as it is named and stamped now
    bad    files that were left out, and have not changed since
    fresh  files that must be encoded, each with its digest where it is known
    new, changed, gone   how many files there are of each kind
    """

    kept: Sequence[tuple[int, Entry]]
    bad: Sequence[Entry]
    fresh: Sequence[tuple[Seen, str]]
    new: int
    changed: int
    gone: int

    @property
    def is_nothing(self) -> bool:
        """The index is what the folder is."""
        return not (self.fresh or self.gone or self.new or self.changed)


def files_of(folder: Path, endings: Sequence[str], note: Note) -> list[Seen]:
    """The files of a folder and of those in it that end in one of `endings`, in the order of their paths.

    Hidden ones are passed over. Links that lead out of the folder are not followed: only what the user named is read.

    Raises InputError for a folder that cannot be read.
    """
    found, others, outside = [], 0, []
    for path in _walk(folder):
        if path.suffix.lower() not in endings:
            others += 1
        elif path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
            outside.append(path.name)
        elif path.is_file():
            found.append(Seen(path.relative_to(folder).as_posix(), path, stamp(path)))
    if others:
        note(f"left out by their endings: {counted(others)} in '{folder}'; taken are {', '.join(endings)}")
    if outside:
        note(f"not followed, because they lead out of '{folder}': {counted(len(outside), 'link')}, such as {outside[0]}")
    return sorted(found, key=lambda seen: seen.path.casefold())


def counted(number: int, what: str = "file") -> str:
    """A number of things in words."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def _walk(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise InputError(f"the folder '{error.filename or folder}' cannot be read: {error.strerror or error}") from error

    for home, inner, names in os.walk(folder, onerror=refuse):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(home) / name


def stamp(path: Path) -> str:
    """A stamp of fixed length; of a file that may not be read an empty one, which is equal to none."""
    try:
        return hashlib.sha256(stamp_of(path).encode()).hexdigest()[:32]
    except OSError:
        return ""


def compare(seen: Sequence[Seen], entries: Sequence[Entry], left_out: Sequence[Entry]) -> Changes:
    """Compare a folder with an index: by path and stamp, and where these differ by the digests of whole files.

    A file that was moved, or written again as it was, is not encoded again.
    """
    rows = {entry.path: row for row, entry in enumerate(entries)}
    bad_before = {entry.path: entry for entry in left_out}
    contents = {entry.digest: row for row, entry in enumerate(entries)}
    kept, bad, fresh = list[tuple[int, Entry]](), list[Entry](), list[tuple[Seen, str]]()
    new = changed = 0
    for one in seen:
        row, before = rows.get(one.path), bad_before.get(one.path)
        if row is not None and one.stamp and entries[row].stamp == one.stamp:
            kept.append((row, entries[row]))
            continue
        if before is not None and one.stamp and before.stamp == one.stamp:
            bad.append(before)
            continue
        new, changed = new + (row is None and before is None), changed + (row is not None or before is not None)
        digest = _digest(one) if entries else ""
        if digest and digest in contents:
            kept.append((contents[digest], replace(entries[contents[digest]], path=one.path, stamp=one.stamp)))
        else:
            fresh.append((one, digest))
    there = {one.path for one in seen}
    return Changes(kept, bad, fresh, new, changed, len((rows.keys() | bad_before.keys()) - there))


def _digest(seen: Seen) -> str:
    try:
        return digest_of(seen.file)
    except OSError:
        return ""
