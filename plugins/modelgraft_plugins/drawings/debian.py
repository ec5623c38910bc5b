"""Packages of Debian as files: fetched by apt-get, and opened without installing them: an ar archive with a tar in it."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from modelgraft.plugin import InputError
from modelgraft_plugins.drawings.vendors import DebianPackage

TIMEOUT_S = 600  # 25 MB, and perhaps 10 MB of lists before them
MAGIC, HEAD = b"!<arch>\n", 60  # an ar archive: its first bytes, and the bytes before each member
NAME, SIZE = slice(0, 16), slice(48, 58)  # where these stand in a head


def download(package: DebianPackage, folder: Path) -> None:
    """Let apt-get fetch a package into a folder: nothing is installed, and nobody needs to be root.

    Where the machine has no lists of packages, or old ones, apt-get makes some in `folder/apt`.

    Raises InputError: there is no apt-get, or it cannot fetch this version.
    """
    apt, named = shutil.which("apt-get"), f"{package.name}={package.version}"
    by_hand = f"put {package.file} into {folder} by hand: mirrors of Debian have it in {package.pool}"
    if apt is None:
        raise InputError(f"{package.name} is a package of Debian, and there is no apt-get; {by_hand}")
    folder.mkdir(parents=True, exist_ok=True)
    own = folder.resolve() / "apt"
    for partial in ("state/lists/partial", "cache/archives/partial"):
        (own / partial).mkdir(parents=True, exist_ok=True)
    ours = ["-o", f"Dir::State={own / 'state'}", "-o", f"Dir::Cache={own / 'cache'}"]
    try:
        for commands in ([["download", named]], [[*ours, "update"], [*ours, "download", named]]):
            said = [_run(apt, words, folder) for words in commands][-1]
            if (folder / package.file).is_file():
                return
    finally:
        shutil.rmtree(own)
    raise InputError(f"apt-get could not fetch {named}: {said}; {by_hand}")


def _run(apt: str, words: Sequence[str], folder: Path) -> str:
    """Run apt-get in a folder. Gives the last error that it told."""
    try:
        done = subprocess.run(  # noqa: S603 apt-get, and a package of our own table
            [apt, "--quiet", *words], cwd=folder, capture_output=True, text=True, check=False, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(f"apt-get {words[-1]} took more than {TIMEOUT_S} s; try again") from error
    lines = done.stderr.strip().splitlines()
    return next((line for line in reversed(lines) if line.startswith("E:")), f"exit code {done.returncode}")


def files_of(deb: Path) -> Iterator[tuple[str, bytes]]:
    """Read what a package would install, file by file: its name, as `usr/share/…`, and its bytes. Links are left out.

    Raises InputError where it is no package of Debian.
    """
    try:
        held = next(content for name, content in _members(deb) if name.startswith("data.tar"))
        with tarfile.open(fileobj=io.BytesIO(held)) as archive:
            for member in archive:
                if member.isfile() and (file := archive.extractfile(member)) is not None:
                    yield member.name.removeprefix("./"), file.read()
    except (StopIteration, ValueError, OSError, tarfile.TarError) as error:
        raise InputError(f"{deb} cannot be read as a package of Debian: {error or 'no data.tar'}") from error


def _members(deb: Path) -> Iterator[tuple[str, bytes]]:
    """The files of an ar archive. Raises ValueError where it is none."""
    content = deb.read_bytes()
    if not content.startswith(MAGIC):
        raise ValueError("it is no ar archive")
    place = len(MAGIC)
    while place < len(content):
        head = content[place : place + HEAD]
        size = int(head[SIZE])
        place += HEAD
        yield head[NAME].decode("ascii").rstrip(" /"), content[place : place + size]
        place += size + size % 2  # members begin at even places
