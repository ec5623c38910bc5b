"""Files that appear whole or not at all: written aside, sent to the disk, and given their name in one step."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ASIDE = re.compile(r"\..+\.[0-9a-f]{12}")  # what `path_aside` makes


def path_aside(target: Path) -> Path:
    """A name beside `target` that nobody has, for what is written before it gets that name, or deleted after it had it."""
    return target.with_name(f".{target.name}.{secrets.token_hex(6)}")


def discard(folder: Path) -> None:
    """Delete a folder, which loses its name in one step: nobody takes the half that is left for the whole."""
    aside = path_aside(folder)
    folder.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def clear_asides(folder: Path) -> None:
    """Delete what processes that were killed have left beside their targets, in a folder that nobody else writes to now."""
    for path in folder.glob(".*"):
        if not ASIDE.fullmatch(path.name):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()


def publish(aside: Path, target: Path) -> None:
    """Give a file or folder that is written its final name, so that after a loss of power the name leads to the whole of it.

    A name may reach the disk before the contents that it names: first the contents are sent there, then the name is changed,
    then the folder that holds the name is sent. What stood at `target` is replaced; both must lie on one file system.
    """
    _send(aside)
    if aside.is_dir() and target.exists():
        if not _exchange(aside, target):
            old = path_aside(target)
            target.rename(old)  # away in one step, so that nobody sees a half of it
            aside.rename(target)
            aside = old
        shutil.rmtree(aside, ignore_errors=True)
    else:
        os.replace(aside, target)  # noqa: PTH105 the one place where names are changed
    _send_folder(target.parent)


def begin_to_send(path: Path) -> None:
    """Let a file that is complete go to the disk while something else is done: `publish` then waits for what is left of it.

    Where an open file keeps its folder from being renamed nothing is done.
    """

    def send() -> None:
        with contextlib.suppress(OSError):  # it may be gone again: whoever publishes it hears of what is wrong
            _sync(path, os.O_RDONLY)

    if os.name == "posix":
        threading.Thread(target=send, name="sending", daemon=True).start()


def _exchange(one: Path, other: Path) -> bool:
    """Let two names change places in one step, so that there is no moment without either; says whether the system has a way to."""
    import ctypes

    here, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of renameat2(2) of Linux
    try:
        renamed: int = ctypes.CDLL(None).renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange)
    except (AttributeError, OSError, TypeError):
        return False
    return renamed == 0


def _send(path: Path) -> None:
    """Send a file, or all that lies in a folder, to the disk."""
    if not path.is_dir():
        _sync(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)  # Windows sends only what may be written
        return
    for inner in path.iterdir():
        if not inner.is_symlink():
            _send(inner)
    _send_folder(path)


def _send_folder(path: Path) -> None:
    """Send the names in a folder to the disk, where the system has a way to."""
    if os.name != "posix":
        return
    try:
        _sync(path, os.O_RDONLY)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM):  # disks of a network, folders that cannot be listed
            raise


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def file_aside(target: Path, *, suffix: str = "") -> Iterator[Path]:
    """Give a path of a file that becomes `target` when the block ends well, and vanishes when it does not: see `publish`.

    suffix  what the path ends with, for writers that go by it
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = path_aside(target)
    aside = beside.with_name(beside.name + suffix)
    os.close(os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))  # whoever may read what its owner writes may read it
    mode = stat.S_IMODE(aside.stat().st_mode)
    try:
        yield aside
        if stat.S_IMODE(aside.stat().st_mode) != mode:  # a writer that made it anew, such as safetensors, for its owner alone
            aside.chmod(mode)
        publish(aside, target)
    finally:
        aside.unlink(missing_ok=True)
