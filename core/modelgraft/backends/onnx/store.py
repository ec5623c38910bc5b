"""The cache of exports: by content, whole or not at all, checked by hash, bounded."""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from modelgraft.backends.onnx.processor import machine_key
from modelgraft.backends.onnx.runtime import open_session, tune
from modelgraft.checkpoints.progress import current_listener
from modelgraft.checkpoints.storage import (
    cache_in_use,
    cache_root,
    clear_leftovers,
    file_aside,
    folder_aside,
    locked,
    remember_hash,
    sha256_of,
)

GRAPH = "model.onnx"
SEAL = "sha256.json"
MOST_BYTES = 20 * 2**30  # the oldest exports are deleted above this
WRITERS = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu")  # other versions may write another graph


@dataclass(frozen=True, slots=True)
class Entry:
    """An export on disk, with its manifest (ports, sizes, opset, hashes, parity)."""

    folder: Path
    manifest: Mapping[str, Any]


def exports_root() -> Path:
    """Folder of all exports."""
    return cache_root() / "exports"


def export_key(modules: Iterable[str], **facts: Any) -> str:
    """A hex digest of everything that an export depends on: plain values by name, its code, and the packages that write it.

    modules  where the code of its parts lies, as "package.module:Class"
    """
    code = {module: _digest_of(_files_beside(module.partition(":")[0])) for module in modules}
    code["backend"] = _digest_of(Path(__file__).parent.glob("*.py"))
    text = json.dumps({**facts, "versions": {name: _version(name) for name in WRITERS}, "code": code}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def _files_beside(module: str) -> Iterable[Path]:
    """The source of a module and of those in its package: what it builds, and how it exports itself, may lie in any of them."""
    try:
        spec = importlib.util.find_spec(module)
    except ValueError:
        return ()  # made while the program runs, as in a notebook: it has no source
    if spec is None or spec.origin is None:
        return ()
    return Path(spec.origin).parent.glob("*.py") if spec.parent else (Path(spec.origin),)


def _digest_of(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def find(key: str) -> tuple[Entry | None, str]:
    """The export of a key if it is there and unharmed; otherwise None and, when there was one, what was wrong with it."""
    folder = exports_root() / key[:2] / key
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        return None, ""
    try:
        facts = json.loads(manifest.read_text(encoding="utf-8"))
        for name, expected in facts["sha256"].items():
            if sha256_of(folder / name) != expected:
                return None, f"the cached export {folder.name} was changed on disk ({name}): it is made again"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return None, f"the cached export {folder.name} is damaged ({error}): it is made again"
    return Entry(folder, facts), ""


def manifest_of(key: str) -> Mapping[str, Any]:
    """The manifest kept under a key, its files unread; empty when there is none that was proven on this kind of processor."""
    folder = exports_root() / key[:2] / key
    facts = _manifest_in(folder)
    parity = parity_here(Entry(folder, facts))
    return {**facts, "parity": parity} if parity is not None else {}


def parity_here(entry: Entry) -> Mapping[str, Any] | None:
    """How far an export is from torch on this kind of processor; None where that was never found out."""
    if entry.manifest.get("processor") == machine_key():
        parity = entry.manifest.get("parity")
    else:
        parity = _facts_in(_proof_file(entry)).get("parity")
    return parity if isinstance(parity, dict) else None


def write_proof(entry: Entry, parity: Mapping[str, Any]) -> None:
    """Keep how far an export, which was made on another kind of processor, is from torch on this one. Raises OSError."""
    with file_aside(_proof_file(entry)) as aside:
        aside.write_text(json.dumps({"processor": machine_key(), "parity": dict(parity)}), encoding="utf-8")


def _proof_file(entry: Entry) -> Path:
    return entry.folder / f"proof-{machine_key()}.json"


def _manifest_in(folder: Path) -> Mapping[str, Any]:
    return _facts_in(folder / "manifest.json")


def _facts_in(file: Path) -> Mapping[str, Any]:
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def seal(folder: Path) -> Mapping[str, str]:
    """Note the hashes of the files of a folder in it, and give them."""
    hashes = _hashes_in(folder)
    (folder / SEAL).write_text(json.dumps(hashes), encoding="utf-8")
    return hashes


def _hashes_in(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in sorted(folder.iterdir())}


def _remember(folder: Path, hashes: Mapping[str, str]) -> None:
    """The files have got their final names: the next start does not read them again."""
    for name, digest in hashes.items():
        remember_hash(folder / name, digest)


def unharmed(folder: Path) -> bool:
    """Whether a sealed folder is there with the files that it was sealed with."""
    try:
        hashes = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        return all(sha256_of(folder / name) == expected for name, expected in hashes.items())
    except (OSError, ValueError, AttributeError):
        return False


def session(folder: Path, device: str, *, graph: str = GRAPH, count: int | None = None) -> tuple[Any, tuple[str, ...]]:
    """Open a graph of an export as it was tuned for this machine, tuning it the first time; on a GPU the plain graph.

    count  threads that it computes with; None: as `runtime.threads` says

    Gives the session, and what a user must know. `Any`: onnxruntime has no types.
    """
    if device != "cpu":
        return open_session(folder / graph, device=device, count=count), ()
    tuned = folder / f"tuned-{machine_key()}-{Path(graph).stem}"
    remarks: tuple[str, ...] = ()
    if not unharmed(tuned):
        if tuned.is_dir():
            remarks = (f"{graph} as it was tuned for this machine was changed on disk: it is tuned again",)
        if why_not := _tune(folder / graph, tuned):
            remarks = (*remarks, f"{graph} is not kept as tuned for this machine ({why_not}): starting takes longer")
            return open_session(folder / graph, device=device, count=count), remarks
    return open_session(tuned / graph, device=device, optimised=True, count=count), remarks


def _tune(graph: Path, folder: Path) -> str:
    """Make the tuned folder of a graph; gives why there is none, or an empty string.

    What the graph itself is to blame for is remembered beside the folder; a lack of room is not.
    """
    refused = folder.with_name(f"{folder.name}.refused")
    if refused.is_file():
        return refused.read_text(encoding="utf-8")
    try:
        with locked(exports_root() / "locks" / f"{folder.parent.name}.{folder.name}"):
            if unharmed(folder):
                return ""  # another process was faster
            with folder_aside(folder) as aside:
                tell(4, "tuning for this machine")
                if why_not := tune(graph, aside / graph.name):
                    if shutil.disk_usage(aside).free < _bytes_in(graph.parent):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    refused.write_text(why_not, encoding="utf-8")
                    raise OSError(why_not)
                hashes = seal(aside)
            _remember(folder, hashes)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def tell(stage: int, what: str) -> None:
    """Tell whoever listens which of the four stages of an export begins: tracing, reducing, comparing, tuning."""
    current_listener()(stage, 4, f"{what} for onnx, step" if stage < 4 else f"{what}, step")


def make(key: str, build: Callable[[Path], Mapping[str, Any]], *, instead_of: Entry | None = None) -> Entry:
    """Build an export aside and publish it under its key; another process that was faster wins.

    build       writes the files into an empty folder and gives the manifest, to which hashes, time and processor are added
    instead_of  one that is kept under the key and of no use here
    """
    folder = exports_root() / key[:2] / key
    with cache_in_use(), locked(exports_root() / "locks" / key):
        for parent in (*exports_root().glob("*/"), *exports_root().glob("*/*/")):
            clear_leftovers(parent)
        found, _ = find(key)
        if found is not None and (instead_of is None or found.manifest != instead_of.manifest):
            return found
        with folder_aside(folder) as aside:
            facts = dict(build(aside))
            facts["sha256"] = _hashes_in(aside)
            facts["made"], facts["processor"] = time.time(), machine_key()
            (aside / "manifest.json").write_text(json.dumps(facts, indent=1, default=str), encoding="utf-8")
    _remember(folder, facts["sha256"])
    trim(keep=key)
    return Entry(folder, facts)


def entries() -> list[Entry]:
    """All exports, the oldest first. Raises SourceError `cache-failed` when the cache is no folder."""
    with cache_in_use():
        if cache_root().exists():
            list(cache_root().iterdir())
    found = [Entry(manifest.parent, _manifest_in(manifest.parent)) for manifest in exports_root().glob("*/[!.]*/manifest.json")]
    return sorted(found, key=lambda entry: float(entry.manifest.get("made", 0.0)))


def size_of(entry: Entry) -> int:
    """Bytes on disk."""
    return _bytes_in(entry.folder)


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def trim(*, keep: str, most_bytes: int = MOST_BYTES) -> list[str]:
    """Delete the oldest exports until the rest fits; gives their keys. The one to keep stays whatever its size."""
    known = entries()
    total, deleted = sum(map(size_of, known)), list[str]()
    for entry in known:
        if total <= most_bytes:
            break
        if entry.folder.name != keep:
            total -= size_of(entry)
            shutil.rmtree(entry.folder, ignore_errors=True)
            deleted.append(entry.folder.name)
    return deleted


def clear() -> None:
    """Delete every export."""
    shutil.rmtree(exports_root(), ignore_errors=True)
