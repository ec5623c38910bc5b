"""The cache folder: where it is, and how two processes write to it without harm.

Everything here can be fetched or computed again, so the folder may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelgraft.kernel.words.errors import Problem, SourceError
from modelgraft.records.homes import home_read
from modelgraft.records.publishing import file_aside, path_aside, publish

NOT_OURS = (errno.EROFS, errno.EACCES, errno.EPERM)  # a folder that may be read, and not written to
OWNERS = 0o600  # the mode of a file that its writer made for its owner alone
NEW_S = 60  # a folder that is made is locked within this time
CHUNK_BYTES = 1 << 20  # large enough that hashing is bound by the disk, small enough to report progress
SAMPLES, SAMPLE_BYTES = 16, 4096  # what is read of a large file to tell it from another of its size and time


def cache_root() -> Path:
    """Folder of everything that modelgraft keeps: `MODELGRAFT_CACHE`, or `modelgraft` in the user's cache folder.

    Raises SourceError `cache-failed` for an account without a home, such as one that a container was given by its number alone.
    """
    if chosen := os.environ.get("MODELGRAFT_CACHE"):
        return home_read(chosen).absolute()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or _home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = _home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or _home() / ".cache")
    return base / "modelgraft"


def root_of_what_is_kept() -> Path:
    """The same for who goes on where nothing can be kept: for an account without a home a folder that there cannot be."""
    try:
        return cache_root()
    except SourceError:
        return Path(os.devnull) / "modelgraft"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError as error:
        found = "this account has no home folder to keep a cache in"
        raise SourceError(Problem("cache-failed", found, hint="set MODELGRAFT_CACHE to a folder, or HOME to one of its own")) from error


@contextmanager
def cache_in_use() -> Iterator[None]:
    """Turn what the system refuses within the block (no room, no permission) into SourceError `cache-failed`."""
    try:
        yield
    except OSError as error:
        found = f"the cache {cache_root()} cannot be used: {error.strerror or error}"
        way = "" if error.errno in NOT_OURS else "make room there, or "
        raise SourceError(Problem("cache-failed", found, hint=f"{way}set MODELGRAFT_CACHE to another folder")) from error


@contextmanager
def locked(path: Path, *, waits: bool = True) -> Iterator[bool]:
    """Hold the lock file `path` (made if it is missing) against other processes and threads, and wait for that; gives whether it is held.

    waits  False: do not wait; the block then runs without the lock where another holds it

    Without file locks on this platform nothing is held: writers are safe all the same, because they write aside and rename.
    """
    handle = _lock(path, waits=waits)
    try:
        yield handle is not None
    finally:
        if handle is not None:
            os.close(handle)


def _lock(path: Path, *, waits: bool) -> int | None:
    """Open a lock file and take its lock: of the file that has the name then, should somebody have deleted the one before."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = _open_lock(path)
        try:
            import fcntl
        except ImportError:  # Windows
            return handle
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        except FileNotFoundError:  # deleted between the two looks
            pass
        except BlockingIOError:
            os.close(handle)
            return None
        except OSError:  # some disks of a network have no locks
            return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _open_lock(path: Path) -> int:
    """Open a lock file; to be read alone in a cache that may not be written to, which serves what it holds."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        if error.errno in NOT_OURS:
            with contextlib.suppress(OSError):
                return os.open(path, os.O_RDONLY)
        raise


@contextmanager
def folder_aside(target: Path) -> Iterator[Path]:
    """Give an empty folder that becomes `target` when the block ends well, and vanishes when it does not: see `publish`.

    A killed process leaves its folder behind: see `clear_leftovers`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = path_aside(target)
    aside.mkdir()  # whoever may read what its owner writes may read it
    held = lock_folder(aside)
    try:
        yield aside
        _open_up(aside)
        publish(aside, target)
    finally:
        if held is not None:
            os.close(held)
        shutil.rmtree(aside, ignore_errors=True)


def _open_up(folder: Path) -> None:
    """Give files that their writer kept for its owner alone, such as safetensors, the mode that others get in this folder."""
    usual = stat.S_IMODE(folder.stat().st_mode) & 0o666
    for path in folder.iterdir() if os.name == "posix" else ():
        if path.is_file() and not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) == OWNERS:
            path.chmod(usual)


def clear_leftovers(parent: Path) -> None:
    """Delete the folders that `folder_aside` made in `parent`, a folder of the cache, and whose process was killed.

    Without file locks on this platform or disk they stay.
    """
    for aside in parent.glob(".*/"):
        with contextlib.suppress(OSError):  # it has become its target, or another process was faster
            is_new = time.time() - aside.stat().st_mtime < NEW_S
            held = None if is_new else lock_folder(aside)
            if held is not None:
                shutil.rmtree(aside, ignore_errors=True)
                os.close(held)


def lock_folder(folder: Path, *, is_shared: bool = False, waits: bool = False) -> int | None:
    """Lock a folder until the handle that this gives is closed, or the process ends.

    waits  for its turn; meanwhile another folder may have taken the place of this one

    None when another holds it in another way than both sharing it, it is not there, or there are no file locks.
    """
    try:
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        return None
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | (0 if waits else fcntl.LOCK_NB))
    except OSError:
        os.close(handle)
        return None
    return handle


def stamp_of(path: Path) -> str:
    """Tells contents of a file apart without reading all of it: its size, its time of change, and samples from its beginning to its end.

    The time alone does not: archives and copies may give every file the same one. A file that may not be read has no samples.
    """
    stat, digest = path.stat(), hashlib.sha256()
    with contextlib.suppress(OSError), path.open("rb", buffering=0) as file:
        if stat.st_size <= SAMPLES * SAMPLE_BYTES:
            digest.update(file.read())
        else:
            for sample in range(SAMPLES):
                file.seek((stat.st_size - SAMPLE_BYTES) * sample // (SAMPLES - 1))
                digest.update(file.read(SAMPLE_BYTES))
    return f"{stat.st_size}\0{stat.st_mtime_ns}\0{digest.hexdigest()}"


def digest_of(path: Path) -> str:
    """The SHA-256 of a file, in hex, read from its first byte to its last."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file of the user, in hex; remembered beside the cache under the file's place and stamp.

    What was remembered is good enough to look at a graph; before an answer depends on it, ask `digest_of`.
    """
    memo = _memo_of(path)
    try:
        known, _, check = memo.read_text(encoding="ascii").partition(" ")
        if len(known) == 64 and check == hashlib.sha256(known.encode()).hexdigest()[:8]:  # a memo that was cut or changed is not trusted
            return known
    except (OSError, ValueError):
        pass
    found = digest_of(path)
    if os.path.isdir(root_of_what_is_kept()):  # noqa: PTH112 that of pathlib raises where nobody may look; to look at a graph makes no folders
        with contextlib.suppress(OSError), file_aside(memo) as aside:  # a cache that cannot be written costs time, not correctness
            aside.write_text(f"{found} {hashlib.sha256(found.encode()).hexdigest()[:8]}", encoding="ascii")
    return found


def _memo_of(path: Path) -> Path:
    identity = f"{path.resolve()}\0{stamp_of(path)}"
    return root_of_what_is_kept() / "hashes" / hashlib.sha256(identity.encode()).hexdigest()


def remember_named(folder: Path) -> None:
    """Note that the user named a folder of this machine, so that a document may name it by its absolute path."""
    try:
        with file_aside(_note_of(folder.resolve())) as aside:
            aside.write_text(str(folder.resolve()), encoding="utf-8")
    except OSError:
        pass  # without the note the document is refused, and the refusal says what to do


def was_named(path: Path) -> bool:
    """Whether the user has named this path, or a folder that it lies in."""
    real = path.resolve()
    return any(_note_of(folder).is_file() for folder in (real, *real.parents))


def remember_results(folder: Path) -> None:
    """Note that results are kept in a folder of the user: what looks after the cache finds them there."""
    with contextlib.suppress(OSError):  # without the note they are used all the same
        note = _results_root() / _digest_of_path(folder.resolve())
        if not note.is_file():
            with file_aside(note) as aside:
                aside.write_text(str(folder.resolve()), encoding="utf-8")


def named_results() -> list[Path]:
    """The folders of `remember_results` that are still there. A note that does not fit its own name is passed over."""
    found = list[Path]()
    for note in sorted(_results_root().glob("[!.]*")):
        with contextlib.suppress(OSError, ValueError):
            folder = Path(note.read_text(encoding="utf-8"))
            if note.name == _digest_of_path(folder) and folder.is_dir():
                found.append(folder)
    return found


def _results_root() -> Path:
    return cache_root() / "results"


def _digest_of_path(path: Path) -> str:
    return hashlib.sha256(str(path).encode(errors="surrogateescape")).hexdigest()


def _note_of(folder: Path) -> Path:
    return cache_root() / "named" / _digest_of_path(folder)
