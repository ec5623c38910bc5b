"""Packages as files: fetched by their own client, kept, and opened only when their hash is the one that is pinned."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from modelgraft.plugin import InputError
from modelgraft_plugins.drawings.vendors import Package

P = TypeVar("P", bound=Package)
TIMEOUT_S = 600  # the largest archive has 14 MB


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive that has the wanted hash."""

    path: Path

    def json(self, member: str) -> Any:  # Any: what a file of the package holds
        """Read a file of the package. Raises InputError where it has none of that name."""
        try:
            with tarfile.open(self.path) as archive, archive.extractfile(f"package/{member}") as file:  # type: ignore[union-attr]  # only a folder has None
                return json.load(file)
        except (KeyError, tarfile.TarError, ValueError, OSError) as error:
            raise InputError(f"{member} of the package {self.path} cannot be read: {error}") from error


def fetch(package: Package, folder: Path, *, offline: bool = False) -> Archive:
    """Give the archive of a package of npm; raises InputError as `kept` does, and where there is no npm or it cannot fetch."""
    return Archive(kept(package, folder, _pack, offline=offline))


def kept(package: P, folder: Path, download: Callable[[P, Path], None], *, offline: bool) -> Path:
    """Give the file of a package from a folder, or download it into that folder.

    Raises InputError: nothing may be fetched, or the file is not the one that is pinned; and what `download` raises.
    """
    path = folder / package.file
    if not path.is_file():
        if offline:
            raise InputError(f"{path} is not there, and this run is offline; run it once with a network, or put the file there")
        download(package, folder)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != package.sha256:
        raise InputError(f"{path} has sha256 {found}, wanted {package.sha256}: it is cut or another version; delete it to fetch it again")
    return path


def _pack(package: Package, folder: Path) -> None:
    """Let npm fetch an archive: by the user's own settings, and running no script of the package."""
    npm, named = shutil.which("npm"), f"{package.name}@{package.version}"
    if npm is None:
        way_out = f"install it (it comes with Node.js), or put {package.file} into {folder} by hand"
        raise InputError(f"the drawings are packages of the npm registry, and there is no npm; {way_out}")
    folder.mkdir(parents=True, exist_ok=True)
    command = [npm, "pack", named, "--pack-destination", str(folder), "--ignore-scripts", "--silent"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL)  # noqa: S603 npm, and a package of our own table
    except subprocess.TimeoutExpired as error:
        raise InputError(f"npm did not fetch {named} within {TIMEOUT_S} s; try again") from error
    if done.returncode != 0 or not (folder / package.file).is_file():
        said = done.stderr.strip().splitlines()
        raise InputError(f"npm could not fetch {named}: {said[-1] if said else f'exit code {done.returncode}'}")
