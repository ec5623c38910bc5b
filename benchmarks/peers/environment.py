"""Make the environments of the peers once, and find them again.

    python -m benchmarks.peers.environment [--again]

They lie beside other caches of the account, under a name made of what they hold, because peers want other versions of numpy and
pydantic than we do, and MediaPipe others than the rest. The files beside this page pin everything. A peer that cannot be
installed is told with the reason; the rest of its environment stands without it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.peers.engines import PEERS
from benchmarks.peers.packages import Package
from benchmarks.peers.programs import PROGRAMS
from benchmarks.peers.seeing import BUILDERS, ENCODERS, WHOLES

HERE = Path(__file__).resolve().parent
INSTALL_S = 1800  # of one call of pip; the largest packages are 100 MB, and llama.cpp is compiled
LAST = 300  # characters of a reason
EVERY: Mapping[str, Package] = {**BUILDERS, **ENCODERS, **WHOLES, **PROGRAMS}
THEIRS: Mapping[str, Package] = {name: program for name, program in EVERY.items() if program.environment}  # not those of our own


@dataclass(frozen=True, slots=True)
class Place:
    """Where a peer can be imported: its Python and version, or why not."""

    python: str = ""
    version: str = ""
    why: str = ""


def home() -> Path:
    """The folder of all environments: `MODELGRAFT_PEERS`, or one beside the other caches of the account."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("MODELGRAFT_PEERS") or caches / "modelgraft-peers")


def pins(environment: str) -> Path:
    """The file that says what an environment holds, to the last version."""
    return HERE / f"{environment}.txt"


def folder_of(environment: str) -> Path:
    """Where an environment lies: other pins or another Python give another folder."""
    text = f"{pins(environment).read_text(encoding='utf-8')}\0{sys.version}"
    return home() / f"{environment}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def found(peers: Mapping[str, Package] = PEERS) -> Mapping[str, Place]:
    """Where each peer is, by its name; those of an environment that was never made say so, those without one are in ours."""
    places: dict[str, Place] = {}
    for name, peer in peers.items():
        if not peer.environment:
            places[name] = Place(sys.executable, version(peer.distribution))
            continue
        folder = folder_of(peer.environment)
        kept = folder / "found.json"
        if not kept.is_file():
            places[name] = Place(why="not installed: python -m benchmarks.peers.environment makes it")
            continue
        known = json.loads(kept.read_text(encoding="utf-8")).get(name, {"version": "", "why": "unknown when its environment was made"})
        places[name] = Place(str(_python(folder)) if not known["why"] else "", known["version"], known["why"])
    return places


def make(peers: Mapping[str, Package] = PEERS, *, again: bool = False) -> Mapping[str, Place]:
    """Make what is missing; `again` makes all anew, and asks once more for what could not be installed."""
    for environment in sorted({peer.environment for peer in peers.values()}):
        folder = folder_of(environment)
        if again:
            shutil.rmtree(folder, ignore_errors=True)
        those = {name: peer for name, peer in peers.items() if peer.environment == environment}
        if not (folder / "found.json").is_file():
            print(f"making the environment {environment} in {folder}", file=sys.stderr, flush=True)
            _make(environment, folder, those)
        else:
            _look_for(folder, those)
    return found(peers)


def _look_for(folder: Path, peers: Mapping[str, Package]) -> None:
    """Note those that nobody asked for when their environment was made: what they need may be there."""
    kept = folder / "found.json"
    known = json.loads(kept.read_text(encoding="utf-8"))
    if new := {name: _known(_python(folder), peer, "") for name, peer in peers.items() if name not in known}:
        kept.write_text(json.dumps(known | new, indent=1) + "\n", encoding="utf-8")


def _make(environment: str, folder: Path, peers: Mapping[str, Package]) -> None:
    """All pins at once; where that fails each peer by itself, so that one that is not to be had costs only its own row."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    python, reasons = _python(folder), dict[str, str]()
    reason = _said([sys.executable, "-m", "venv", str(folder)])
    if not reason:
        reason = _pip(python, "--no-deps", "--requirement", str(pins(environment)))
        for distribution in sorted({peer.distribution for peer in peers.values()}) if reason else []:
            reasons[distribution] = _pip(python, "--constraint", str(pins(environment)), distribution)
    else:
        reasons = {peer.distribution: reason for peer in peers.values()}
    known = {name: _known(python, peer, reasons.get(peer.distribution, "")) for name, peer in peers.items()}
    if not folder.is_dir():
        folder.mkdir(parents=True)
    (folder / "found.json").write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


def _known(python: Path, peer: Package, reason: str) -> dict[str, str]:
    """Whether it can be imported, and its version."""
    if reason:
        return {"version": "", "why": f"not installed: {reason}"}
    code = f"import importlib.metadata as m, {peer.module}; print(m.version({peer.distribution!r}))"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        return {"version": "", "why": f"not importable: {_last(done.stderr)}"}
    return {"version": done.stdout.split()[-1], "why": ""}


def _python(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _pip(python: Path, *words: str) -> str:
    return _said([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--prefer-binary", *words])


def _said(command: list[str]) -> str:
    """Why a command failed, or an empty string."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALL_S)
    except subprocess.TimeoutExpired:
        return f"it took more than {INSTALL_S} s"
    return _last(done.stderr or done.stdout) if done.returncode else ""


def _last(text: str) -> str:
    """The last line that says something."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("WARNING")]
    return (lines[-1] if lines else "it said nothing")[-LAST:].strip()


def main() -> None:
    """Make the environments, and say what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--again", action="store_true", help="make them anew")
    for name, place in make({**PEERS, **THEIRS}, again=parser.parse_args().again).items():
        print(f"{name:16} {place.version or place.why}")


if __name__ == "__main__":
    main()
