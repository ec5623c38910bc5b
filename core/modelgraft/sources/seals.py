"""Seals: checksums taken when something is kept, and compared before it is believed.

A disk may lose or turn a bit years after it was written, and neither size nor time of change tell. So a folder that is kept
holds a file `seal` with the size of each file and a checksum for each 16 MiB of it (`checksums.py`); a lone file has its seal beside it; a
small file carries its checksum in its first line. They notice every single bit, every run of 32, and of other damage all
but one in four thousand million; they guard against rot. Who may write into the cache may write a seal as well: against
that nothing helps that lies in the cache, which is why what a user names by `#sha256=` is compared with that.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent import futures  # which imports its threads when the first are wanted
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from modelgraft.records.publishing import file_aside
from modelgraft.sources import checksums

Found = TypeVar("Found")

SEAL = "seal"  # the file of a folder
LARGE = "rows"  # what stands in it behind the checksums of a large file
PIECE_BYTES = 16 << 20  # that have a checksum
READ_BYTES = 1 << 20  # read at a time: few enough waits for Python's lock, and what each worker holds beside what it reads
MOST_WORKERS = 4  # more wait for the disk or for memory
_FIRST = "modelgraft-seal 1 {:08x}\n"  # the first line of a sealed text; its version, and the checksum of what follows


class BrokenSeal(ValueError):
    """What is kept is not what was written; the text says how, and that nothing is lost: it can be made again."""


@dataclass(frozen=True, slots=True)
class Sum:
    """The size of a file, and the checksum of each piece of it; large: as those of large files are, which seals of before did not have."""

    size: int
    pieces: tuple[int, ...]
    is_large: bool = False


_Facts = tuple[int, ...]  # that tell what a file holds from what it held before: where it lies, its size, and when it was changed
_begun = dict[_Facts, futures.Future[Sum]]()  # of files whose folders are not sealed yet
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begun.clear)  # no thread of the other process goes on here


# -- small files, which carry their own -----------------------------------------------------------------------------------


def sealed(content: bytes) -> bytes:
    """The content behind a line with its checksum."""
    return _FIRST.format(zlib.crc32(content)).encode() + content


def unsealed(content: bytes) -> bytes:
    """The content of `sealed`. Raises BrokenSeal."""
    line, end, rest = content.partition(b"\n")
    if line + end != _FIRST.format(zlib.crc32(rest)).encode():
        raise BrokenSeal("its checksum is of something else")
    return rest


def read_sealed(path: Path) -> Any:
    """The JSON of a small sealed file. `Any`: as json.loads. Raises BrokenSeal, OSError as when it is not there."""
    try:
        return json.loads(unsealed(path.read_bytes()))
    except (ValueError, RecursionError) as error:
        raise BrokenSeal(f"{path.name}: {error}") from error


def write_sealed(path: Path, content: Any) -> None:
    """Write JSON (`Any`: what json.dumps takes) as a small sealed file, whole or not at all."""
    with file_aside(path) as aside:
        aside.write_bytes(sealed(json.dumps(content).encode()))


# -- folders, and lone files ----------------------------------------------------------------------------------------------


def begin_to_seal(path: Path) -> None:
    """Let a file that is complete be summed up while something else is done: `seal` of its folder takes that, if it is still the same."""
    with contextlib.suppress(OSError):  # it may be gone again
        pool = futures.ThreadPoolExecutor(1, thread_name_prefix="seals")
        _begun[_facts_of(path)] = pool.submit(_sum, path)
        pool.shutdown(wait=False)


def seal(folder: Path) -> None:
    """Write the seal of a folder that is complete."""
    inner = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / SEAL)
    begun = {path: found for path in inner if (found := _begun.pop(_facts_of(path), None)) is not None}
    with futures.ThreadPoolExecutor(_workers(MOST_WORKERS), thread_name_prefix="seals") as pool:
        work = {path: [pool.submit(_sum_from, path, place) for place in _places(path)] for path in inner if path not in begun}
        sums = {path: _summed(path, [piece.result() for piece in pieces]) for path, pieces in work.items()}
    sums |= {path: found.result() for path, found in begun.items()}
    _write(folder / SEAL, {path.relative_to(folder).as_posix(): sums[path] for path in inner})


def seal_file(path: Path) -> None:
    """Write the seal of a lone file beside it."""
    _write(seal_of(path), {path.name: _sum(path)})


def seal_of(path: Path) -> Path:
    """Where the seal of a lone file lies."""
    return path.with_name(f".{path.name}.{SEAL}")


def names_in(folder: Path) -> tuple[str, ...]:
    """The files that a folder was sealed with. Raises BrokenSeal."""
    return tuple(_read(folder / SEAL))


def complaint(folder: Path, names: Collection[str] | None = None, *, quick: bool = False, within: range | None = None) -> str:
    """What is wrong with a sealed folder, or an empty string.

    names   the files that are looked at; None: all. One that was not sealed is wrong
    quick   look at the sizes, and at the first piece of each file, which is the whole of a small one
    within  of a file that was looked at so: the pieces behind the first that hold these bytes; None: all of it
    """
    try:
        _compare(folder, _read(folder / SEAL), names, quick=quick, within=within)
    except BrokenSeal as error:
        return str(error)
    return ""


def complaint_of_file(path: Path, *, quick: bool = False, within: range | None = None) -> str:
    """What is wrong with a lone sealed file, or an empty string. quick, within: see `complaint`."""
    try:
        _compare(path.parent, _read(seal_of(path)), (path.name,), quick=quick, within=within)
    except BrokenSeal as error:
        return str(error)
    return ""


class Proof(Generic[Found]):
    """A look at what is kept that goes on beside other work, such as imports: its result must be asked for before an answer."""

    def __init__(self, look: Callable[[], Found]) -> None:
        pool = futures.ThreadPoolExecutor(1, thread_name_prefix="seals")
        self._found = pool.submit(look)
        pool.shutdown(wait=False)

    def result(self) -> Found:
        """Wait for the end; gives what `look` gives, and raises what it raises."""
        return self._found.result()


def text_of(folder: Path) -> str:
    """The seal itself: two folders with the same have the same contents. Raises OSError when there is none."""
    return (folder / SEAL).read_text(encoding="utf-8", errors="replace")


def _write(path: Path, sums: Mapping[str, Sum]) -> None:
    write_sealed(path, {name: [found.size, list(found.pieces), *([LARGE] if found.is_large else [])] for name, found in sums.items()})


def _read(path: Path) -> dict[str, Sum]:
    try:
        return {name: Sum(size, tuple(pieces), more == [LARGE]) for name, (size, pieces, *more) in read_sealed(path).items()}
    except FileNotFoundError as error:
        raise BrokenSeal("it has no seal: an older version has kept it, or it was not finished") from error
    except OSError as error:
        raise BrokenSeal(f"its seal cannot be read: {error.strerror or error}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise BrokenSeal(f"its seal is broken: {error}") from error


def _compare(
    folder: Path, sums: Mapping[str, Sum], names: Collection[str] | None, *, quick: bool = False, within: range | None = None
) -> None:
    wanted = {name: sums.get(name) for name in (sums if names is None else names)}
    work = [piece for name, expected in wanted.items() for piece in _pieces(folder, name, expected, quick=quick)]
    if within is not None:
        work = [piece for piece in work if piece.place.start and piece.place.start < within.stop and piece.place.stop > within.start]
    workers = _workers(len(work))
    if workers <= 1 or sum(len(piece.place) for piece in work) <= PIECE_BYTES:
        _look(work)
        return
    with futures.ThreadPoolExecutor(workers, thread_name_prefix="seals") as pool:
        list(pool.map(_look, [work[first::workers] for first in range(workers)]))  # list(): raises what a worker raised


def _workers(most: int) -> int:
    """How many threads read at once: as many as there are cores."""
    return min(MOST_WORKERS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, most)


@dataclass(frozen=True, slots=True)
class _Piece:
    """A piece of a file that is to be looked at."""

    path: Path
    name: str
    place: range
    expected: int
    is_large: bool


def _pieces(folder: Path, name: str, expected: Sum | None, *, quick: bool) -> Iterator[_Piece]:
    """What is to be read of a file whose size is right. Raises BrokenSeal."""
    path = folder / name
    if expected is None:
        raise BrokenSeal(f"{name} was not there when it was sealed")
    try:
        size = path.lstat().st_size
    except OSError as error:
        raise BrokenSeal(f"{name} is gone" if isinstance(error, FileNotFoundError) else f"{name}: {error.strerror or error}") from error
    if path.is_symlink() or not path.is_file():
        raise BrokenSeal(f"{name} is no file of its own, but {'a link' if path.is_symlink() else 'a folder'}")
    if size != expected.size:
        raise BrokenSeal(f"{name} has {size:,} bytes, and had {expected.size:,}")
    places = checksums.pieces_of(size, PIECE_BYTES, is_large=expected.is_large)
    if len(places) != len(expected.pieces):
        raise BrokenSeal(f"its seal has {len(expected.pieces)} checksums for {name}, and {len(places)} are wanted")
    for place, check in list(zip(places, expected.pieces, strict=True))[: 1 if quick else None]:
        yield _Piece(path, name, place, check, expected.is_large)


def _look(pieces: Iterable[_Piece]) -> None:
    """Compare pieces with their checksums. Raises BrokenSeal with the first that differs."""
    for piece in pieces:
        try:
            with piece.path.open("rb", buffering=0) as file:
                found = checksums.sum_of(file, piece.place, READ_BYTES, is_large=piece.is_large)
        except OSError as error:
            raise BrokenSeal(f"{piece.name} cannot be read: {error.strerror or error}") from error
        if found != piece.expected:
            place = piece.place
            raise BrokenSeal(f"{piece.name} differs from what was written, within the {len(place):,} bytes from {place.start:,} on")


def _sum(path: Path) -> Sum:
    return _summed(path, [_sum_from(path, place) for place in _places(path)])


def _summed(path: Path, pieces: Iterable[int]) -> Sum:
    return Sum(path.stat().st_size, tuple(pieces), _is_large(path))


def _is_large(path: Path) -> bool:
    return path.stat().st_size > checksums.LARGE_BYTES


def _places(path: Path) -> list[range]:
    """The pieces of a file."""
    return checksums.pieces_of(path.stat().st_size, PIECE_BYTES, is_large=_is_large(path))


def _sum_from(path: Path, place: range) -> int:
    """The checksum of a piece."""
    with path.open("rb", buffering=0) as file:
        return checksums.sum_of(file, place, READ_BYTES, is_large=_is_large(path))


def _facts_of(path: Path) -> _Facts:
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
