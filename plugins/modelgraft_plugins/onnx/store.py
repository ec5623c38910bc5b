"""The cache of exports: by content, whole or not at all, sealed, bounded. Without torch, for plans and for `modelgraft cache`.

What is opened is read whole before: the manifest when an export is looked for, the files of a graph when its session opens (tuned.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from modelgraft.plugin import (
    PluginError,
    cache_in_use,
    cache_root,
    clear_leftovers,
    current_listener,
    folder_aside,
    kept,
    let_go,
    locked,
    seals,
)
from modelgraft_plugins.onnx import begun
from modelgraft_plugins.onnx.large_pages import making
from modelgraft_plugins.onnx.leaving import ask_to_export
from modelgraft_plugins.onnx.runtime import runtime, version_of
from modelgraft_plugins.processor import machine_key

GRAPH = "model.onnx"
MANIFEST = "manifest.json"
MOST_BYTES = 20 * 2**30  # the oldest exports are deleted above this
WRITERS = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu")  # other versions may write another graph


EXPORTERS = ("onnx", "onnxscript")


def can_export() -> bool:
    """Whether what writes graphs is installed; the backend may be there without, as onnxruntime is needed by others too."""
    return all(importlib.util.find_spec(name) is not None for name in EXPORTERS)


def need_exporter() -> None:
    """Raise PluginError, with the way out, where what writes graphs is not installed."""
    if not can_export():
        raise PluginError(f"exporting needs {' and '.join(EXPORTERS)}: pip install 'modelgraft[onnx]'")


@dataclass(frozen=True, slots=True)
class Entry:
    """An export on disk, with its manifest (ports, sizes, opset, hashes, parity)."""

    folder: Path
    manifest: Mapping[str, Any]


def exports_root() -> Path:
    """Folder of all exports."""
    return cache_root() / "exports"


def folder_of(key: str) -> Path:
    """Folder of the export of a key, whether it is there or not."""
    return exports_root() / key[:2] / key


def export_key(modules: Iterable[str], **facts: Any) -> str:
    """A hex digest of everything that an export depends on: plain values by name, its code, and the packages that write it.

    modules  where the code of its parts lies, as "package.module:Class"
    """
    code = {module: _digest_of(_files_beside(module.partition(":")[0])) for module in modules}
    here = Path(__file__).parent
    code["backend"] = _digest_of([*here.glob("*.py"), here.parent / "graph_writing.py"])
    text = json.dumps({**facts, "versions": {name: version_of(name) for name in WRITERS}, "code": code}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


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
    seen = [(path, path.stat()) for path in sorted(files)]
    return _digest_of_those(tuple((path, (facts.st_ino, facts.st_size, facts.st_mtime_ns)) for path, facts in seen))


@lru_cache(maxsize=256)  # plugins: a start asks twice, before and while a node is loaded
def _digest_of_those(files: tuple[tuple[Path, tuple[int, ...]], ...]) -> str:
    """Of files, each with what tells whether it was written to since."""
    digest = hashlib.sha256()
    for path, _ in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def find(key: str) -> tuple[Entry | None, str]:
    """The export of a key if it is there and looks unharmed; otherwise None and, when there was one, what was wrong with it.

    Large files are looked at when they are opened: see `tuned.session` and `proven_file`.
    """
    folder = folder_of(key)
    if not kept.hold(folder):
        return None, ""
    complaint = seals.complaint(folder, quick=True)
    facts = manifest_in(folder)
    if not complaint and facts:
        return Entry(folder, facts), ""
    return None, f"the cached export {key} is damaged ({complaint or 'its manifest is no mapping'}): it is made again"


def broken(entry: Entry) -> str:
    """What is wrong with any file of an export, or an empty string."""
    return seals.complaint(entry.folder)


def proven_file(folder: Path, name: str) -> Path:
    """A file of an export beside its graphs, read whole. Raises BrokenSeal."""
    if complaint := seals.complaint(folder, (name,)):
        raise seals.BrokenSeal(complaint)
    return folder / name


def manifest_of(key: str) -> Mapping[str, Any]:
    """The manifest kept under a key, its files unread; empty when there is none that was proven on this kind of processor."""
    folder = folder_of(key)
    facts = manifest_in(folder)
    parity = parity_here(Entry(folder, facts))
    return {**facts, "parity": parity} if parity is not None else {}


def parity_here(entry: Entry) -> Mapping[str, Any] | None:
    """How far an export is from torch on this kind of processor; None where that was never found out."""
    if entry.manifest.get("processor") == machine_key():
        parity = entry.manifest.get("parity")
    else:
        parity = _proof_in(_proof_file(entry)).get("parity")
    return parity if isinstance(parity, dict) else None


def write_proof(entry: Entry, parity: Mapping[str, Any]) -> None:
    """Keep how far an export, which was made on another kind of processor, is from torch on this one. Raises OSError."""
    seals.write_sealed(_proof_file(entry), {"processor": machine_key(), "parity": dict(parity)})


def _proof_file(entry: Entry) -> Path:
    return entry.folder / f"proof-{machine_key()}.json"


def _proof_in(file: Path) -> Mapping[str, Any]:
    """A proof that was kept; nothing where it is missing or broken: then the export is compared again."""
    try:
        found = seals.read_sealed(file)
    except (OSError, seals.BrokenSeal):
        return {}
    return found if isinstance(found, dict) else {}


def manifest_in(folder: Path) -> Mapping[str, Any]:
    """The manifest of an export, as it was written; nothing where it is missing or broken."""
    if seals.complaint(folder, (MANIFEST,)):
        return {}
    try:
        facts = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


STAGES = 3  # of an export: tracing or building, reducing, comparing


def tell(stage: int, what: str) -> None:
    """Tell whoever listens which stage of an export begins."""
    current_listener()(stage, STAGES, f"{what} for onnx, step")


def make(key: str, build: Callable[[Path], Mapping[str, Any]], *, instead_of: Entry | None = None) -> Entry:
    """Build an export aside and publish it under its key; another process that was faster wins.

    build       writes the files into an empty folder and gives the manifest, to which time and processor are added
    instead_of  one that is kept under the key and of no use here

    Raises Left where it is not to be made now, PluginError where what writes graphs is not installed.
    """
    ask_to_export(key)
    need_exporter()
    begun.aside(runtime)  # it is wanted once the graph is written, and reading its libraries needs no lock of Python
    folder = folder_of(key)
    with cache_in_use(), locked(exports_root() / "locks" / key):
        for parent in (*exports_root().glob("*/"), *exports_root().glob("*/*/")):
            clear_leftovers(parent)
        found, _ = find(key)
        if found is not None and (instead_of is None or found.manifest != instead_of.manifest):
            return found
        with making(), folder_aside(folder) as aside:
            facts = dict(build(aside))
            facts["made"], facts["processor"] = time.time(), machine_key()
            (aside / MANIFEST).write_text(json.dumps(facts, indent=1, default=str), encoding="utf-8")
            seals.seal(aside)
        kept.hold(folder)
    let_go()  # of the module and the session that was compared with it, before another one opens
    trim(keep=key)
    return Entry(folder, facts)


def refusal(key: str) -> str:
    """Why nothing can be exported under a key, as it was found before; "" where nobody has tried."""
    try:
        return str(seals.read_sealed(_refusal_file(key)))
    except (OSError, seals.BrokenSeal):
        return ""


def write_refusal(key: str, why: str) -> None:
    """Remember why nothing can be exported under a key, for who would only try beside the answers."""
    with contextlib.suppress(OSError):
        seals.write_sealed(_refusal_file(key), why)


def _refusal_file(key: str) -> Path:
    return exports_root() / "refused" / f"{key}.json"


def entries() -> list[Entry]:
    """All exports, the oldest first. Raises SourceError `cache-failed` when the cache is no folder."""
    with cache_in_use():
        if cache_root().exists():
            list(cache_root().iterdir())
    found = [Entry(manifest.parent, manifest_in(manifest.parent)) for manifest in exports_root().glob(f"*/[!.]*/{MANIFEST}")]
    return sorted(found, key=lambda entry: float(entry.manifest.get("made", 0.0)))


def size_of(entry: Entry) -> int:
    """Bytes on disk."""
    return bytes_in(entry.folder)


def bytes_in(folder: Path) -> int:
    """Bytes on disk of all that a folder holds."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def trim(*, keep: str, most_bytes: int = MOST_BYTES) -> list[str]:
    """Delete the oldest exports until the rest fits; gives their keys. The one to keep stays whatever its size."""
    known = entries()
    total, deleted = sum(map(size_of, known)), list[str]()
    for entry in known:
        if total <= most_bytes:
            break
        size = size_of(entry)
        if entry.folder.name != keep and kept.delete(entry.folder):
            total -= size
            deleted.append(entry.folder.name)
    return deleted
