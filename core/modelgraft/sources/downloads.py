"""Download a package as an archive: pip says where it lies, the bytes come over HTTP with resumption.

`pip install --dry-run --report` names the address and the hash by the user's own settings (index, proxy, certificates)
and installs nothing; only built packages are asked for, because asking for a source package would run its code.
Where the bytes cannot be fetched that way, `pip download` does it with its own means.
"""

from __future__ import annotations

import errno
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from importlib.machinery import PathFinder
from pathlib import Path

from modelgraft.kernel.words.errors import Problem, SourceError
from modelgraft.records.publishing import publish
from modelgraft.sources.progress import Listener
from modelgraft.sources.refs import is_safe
from modelgraft.sources.storage import CHUNK_BYTES, digest_of

TRIES = 5  # a connection that drops more often than this within one download is reported
FIRST_PAUSE_S = 0.2  # before the second try; each further pause is twice as long
TIMEOUT_S = 60  # without a byte
ASK_TIMEOUT_S = 300  # pip may have to wait for a slow index


def download_package(requirement: str, folder: Path, progress: Listener) -> Path:
    """Put the archive of `NAME==VERSION` into a folder and give its path.

    Raises SourceError: `fetch-failed`, `hash-mismatch`.
    """
    client = _pip()
    url, sha256 = _ask(client, requirement)
    name = urllib.parse.unquote(urllib.parse.urlsplit(url).path.rpartition("/")[2])
    if not is_safe(name) or "/" in name:
        raise _failed(requirement, f"the index gives its archive the name {name!r}")
    target = folder / name
    try:
        fetch_url(url, target, sha256=sha256, label=f"bytes of {requirement}", progress=progress)
    except (OSError, http.client.HTTPException) as error:
        flags = ["--no-deps", "--only-binary=:all:", "--quiet", "--dest", str(folder)]
        if _run([*client, "download", *flags, requirement], timeout_s=None).returncode != 0:
            raise _failed(
                requirement, f"the download was cut: {error}; what came in is kept and the next run goes on from there"
            ) from error
    if sha256 and (found := digest_of(target)) != sha256:
        target.unlink()
        raise SourceError(
            Problem("hash-mismatch", f"{name} has sha256 {found}, the index says {sha256}", hint="try again; nothing was kept")
        )
    return target


def fetch_url(url: str, target: Path, *, sha256: str, label: str, progress: Listener) -> None:
    """Fetch a file; what a cut or killed run left in `TARGET.part` is kept and continued.

    Raises OSError or HTTPException when the connection fails for good; a whole that has another hash is fetched anew once.
    """
    part = target.with_name(f"{target.name}.part")
    for is_last in (False, True):
        _fetch_part(url, part, label, progress)
        if not sha256 or digest_of(part) == sha256 or is_last:
            break
        part.unlink()  # a rest of something else: start again
    publish(part, target)


def _fetch_part(url: str, part: Path, label: str, progress: Listener) -> None:
    for left in range(TRIES - 1, -1, -1):
        before = part.stat().st_size if part.exists() else 0
        try:
            if _continue(url, part, label, progress):
                return
        except urllib.error.HTTPError as error:
            if left == 0 or error.code < 500:  # 4xx: asking again gives the same answer
                raise
        except (OSError, http.client.HTTPException):
            if left == 0:
                raise
        if part.exists() and part.stat().st_size == before:
            time.sleep(FIRST_PAUSE_S * 2 ** (TRIES - left))
    raise ConnectionError(f"the connection was closed early {TRIES} times")


def _continue(url: str, part: Path, label: str, progress: Listener) -> bool:
    """Ask for what is missing; True when the file is whole."""
    done = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={done}-"} if done else {})}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 the address is the index's answer to pip
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT_S)  # noqa: S310 as above
    except urllib.error.HTTPError as error:
        if error.code == 416 and done:  # nothing after what we have: whole, or longer than the file; the hash decides
            return True
        raise
    with answer, part.open("ab" if getattr(answer, "status", 200) == 206 else "wb") as file:
        done = file.tell()
        length = answer.headers.get("Content-Length")
        total = done + int(length) if length else None
        told = done
        progress(done, total, label)
        while chunk := answer.read1(CHUNK_BYTES):
            file.write(chunk)
            done += len(chunk)
            if done - told >= CHUNK_BYTES or done == total:  # a piece may be a few bytes
                told = done
                progress(done, total, label)
    return total is None or done == total


def _ask(client: Sequence[str], requirement: str) -> tuple[str, str]:
    """Ask pip where a package lies: address and sha256 (empty when the index gives none)."""
    flags = ["--dry-run", "--no-deps", "--ignore-installed", "--only-binary=:all:", "--quiet", "--report", "-"]
    answer = _run([*client, "install", *flags, requirement], timeout_s=ASK_TIMEOUT_S)
    if answer.returncode != 0:
        raise _failed(requirement, _said(answer.stderr))
    try:
        info = json.loads(answer.stdout)["install"][0]["download_info"]
        return info["url"], info.get("archive_info", {}).get("hashes", {}).get("sha256", "")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _failed(requirement, "pip gave a report without an address (pip 23 or later is needed)") from error


def _said(stderr: str) -> str:
    """The one sentence among pip's complaints: the last ERROR line, or the headline of its newer form of errors."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    told = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    headlines = [line.removeprefix("× ") for line in lines if line.startswith("× ")]
    return (told[-1:] or headlines or lines[-1:] or ["pip failed and said nothing"])[0]


def _pip() -> list[str]:
    """The command of a pip that is at hand: of this environment, else any other, else through uv."""
    if PathFinder.find_spec("pip") is not None:  # importlib.util asks the hooks of setuptools too, which warn of a distutils in use
        return [sys.executable, "-m", "pip"]
    for name in ("pip", "pip3"):
        if path := shutil.which(name):
            return [path]
    if path := shutil.which("uv"):
        return [path, "tool", "run", "pip"]
    raise SourceError(
        Problem("fetch-failed", "packages are fetched with pip, and there is none", hint=f"install it: {sys.executable} -m ensurepip")
    )


# Settings about what may be installed, and where: nothing is installed here. Index, proxy and certificates stay the user's.
_NOT_INSTALLING = {"PIP_CONSTRAINT": "", "PIP_REQUIRE_HASHES": "0", "PIP_REQUIRE_VIRTUALENV": "0", "PIP_USER": "0"}


def _run(command: Sequence[str], *, timeout_s: float | None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(  # noqa: S603 our own command; the requirement was checked by the grammar
            [*command, "--disable-pip-version-check", "--no-input"],
            capture_output=True, text=True, check=False, timeout=timeout_s, stdin=subprocess.DEVNULL, env={**os.environ, **_NOT_INSTALLING},
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise SourceError(Problem("fetch-failed", f"pip did not answer within {timeout_s} s", hint="try again")) from error


def _failed(requirement: str, why: str) -> SourceError:
    """What is raised for what pip said. It works in the folder for temporary files, and needs room there for all of a package."""
    way = "check name, version and network, and try again"
    if os.strerror(errno.ENOSPC) in why:
        way = f"make room in {tempfile.gettempdir()}, where pip works, or set TMPDIR to another folder"
    return SourceError(Problem("fetch-failed", f"the package {requirement} could not be fetched: {why}", hint=way))
