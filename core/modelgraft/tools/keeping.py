"""Everything that is kept on this machine: listed, proven, deleted. What is deleted is made again when it is needed.

    exports      ONNX files, with what was tuned of them and proven for each kind of processor
    conversions  files of weights as a reader has turned them into folders
    tokenizers   tokenizers as transformers had built them
    results      results of nodes, in the folders that `--cache DIR` and `cache_dir=` have named
    downloads    packages that carry weights, and what was unpacked of them

Checkpoints that the Hugging Face tools have fetched are theirs, and not looked at.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelgraft.engine.disk import DiskCache
from modelgraft.sources import kept, seals
from modelgraft.sources.archives import holds_together
from modelgraft.sources.storage import cache_in_use, cache_root, clear_leftovers, locked, named_results
from modelgraft_plugins.onnx import store

KINDS = ("exports", "conversions", "tokenizers", "results", "downloads")


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that is kept.

    about  what it is, in a few words
    lock   what is held while it is made
    facts  of an export its manifest (`Any`: as JSON)
    """

    kind: str
    name: str
    path: Path
    about: str
    lock: Path
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """What it takes on disk."""
        return sum(_size(path) for path in self.files())

    def files(self) -> list[Path]:
        """Its files: of a folder of results those that are results alone, the folder being the user's."""
        if self.kind == "results":
            return DiskCache(self.path, limit_bytes=0).files()
        return [path for path in sorted(self.path.rglob("*")) if path.is_file()] if self.path.is_dir() else [self.path]


@dataclass(frozen=True, slots=True)
class Broken:
    """A file or folder of something that is kept, which is not what was written."""

    item: Item
    path: Path
    found: str
    is_deleted: bool


def items(kinds: Collection[str] = KINDS) -> list[Item]:
    """Everything that is kept of some kinds. Raises SourceError `cache-failed` when the cache is no folder."""
    with cache_in_use():
        if cache_root().exists():
            list(cache_root().iterdir())
    return [item for kind in KINDS if kind in kinds for item in _LISTED[kind]()]


def verify(item: Item) -> list[Broken]:
    """Read a kept thing whole; what is broken of it is deleted, unless somebody uses it."""
    with _held(item) as is_held:
        if not is_held:
            return []  # it is being made now, and proven by who makes it
        if item.kind in ("exports", "conversions"):
            clear_leftovers(item.path.parent)
            clear_leftovers(item.path)
        found = [(path, text) for path, text in _LOOKS[item.kind](item) if text and path.exists()]
        return [Broken(item, path, text, is_deleted=kept.delete(path)) for path, text in found]


def delete(item: Item) -> bool:
    """Delete a kept thing unless somebody makes or uses it; says whether it is gone."""
    with _held(item) as is_held:
        if not is_held:
            return False
        if item.kind != "results":
            return kept.delete(item.path)
        for path in item.files():
            with contextlib.suppress(OSError):
                path.unlink()
                path.parent.rmdir()
        return not item.files()


@contextmanager
def _held(item: Item) -> Iterator[bool]:
    """Hold what is held while a thing is made; gives False when somebody makes it now. A cache that can only be read has no locks."""
    with ExitStack() as stack:
        try:
            is_held = stack.enter_context(locked(item.lock, waits=False))
        except OSError:
            is_held = True
        yield is_held


def forget_hashes() -> None:
    """Delete what was remembered of files of the user: it is found out again."""
    shutil.rmtree(cache_root() / "hashes", ignore_errors=True)


# -- what there is --------------------------------------------------------------------------------------------------------


def _exports() -> Iterator[Item]:
    for folder in sorted(store.exports_root().glob("*/[!.]*/")):
        if folder.parent.name == folder.name[:2]:
            facts = store.manifest_in(folder)
            about = " ".join(str(facts.get(name, "?")) for name in ("component", "precision"))
            yield Item("exports", folder.name, folder, about, store.exports_root() / "locks" / folder.name, facts)


def _conversions() -> Iterator[Item]:
    for folder in sorted((cache_root() / "converted").glob("[!.]*/")):
        yield Item("conversions", folder.name, folder, _model_type(folder), folder.with_suffix(".lock"))


def _tokenizers() -> Iterator[Item]:
    for path in sorted((cache_root() / "tokenizers").glob("[!.]*.json")):
        yield Item("tokenizers", path.stem, path, "", cache_root() / "tokenizers" / ".lock")


def _results() -> Iterator[Item]:
    for folder in named_results():
        item = Item("results", folder.name, folder, str(folder), cache_root() / "results" / ".lock")
        if item.files():
            yield item


def _downloads() -> Iterator[Item]:
    root = cache_root() / "archives"
    for folder in sorted(root.glob("*==*/")):
        yield Item("downloads", folder.name, folder, "package", folder / ".lock")
    for folder in sorted((root / "joined").glob("[!.]*/")):
        yield Item("downloads", folder.name, folder, "joined", folder.parent / f"{folder.name}.lock")


_LISTED: Mapping[str, Callable[[], Iterator[Item]]] = {
    "exports": _exports, "conversions": _conversions, "tokenizers": _tokenizers, "results": _results, "downloads": _downloads,
}  # fmt: skip


def _model_type(folder: Path) -> str:
    try:
        return str(json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"])
    except (OSError, ValueError, KeyError, TypeError):
        return "?"


# -- whether it is whole: each path with what is wrong with it, or an empty string ----------------------------------------


def _look_at_export(item: Item) -> Iterator[tuple[Path, str]]:
    yield item.path, seals.complaint(item.path)
    for tuned in item.path.glob("tuned-*/"):
        yield tuned, seals.complaint(tuned)
    for note in (*item.path.glob("proof-*.json"), *item.path.glob("*.refused")):
        yield note, _complaint_of_note(note)


def _look_at_conversion(item: Item) -> Iterator[tuple[Path, str]]:
    yield item.path, seals.complaint(item.path)


def _look_at_tokenizer(item: Item) -> Iterator[tuple[Path, str]]:
    yield item.path, _complaint_of_note(item.path)


def _look_at_results(item: Item) -> Iterator[tuple[Path, str]]:
    disk = DiskCache(item.path, limit_bytes=0)
    for path in disk.files():
        yield path, disk.complaint(path)


def _look_at_download(item: Item) -> Iterator[tuple[Path, str]]:
    for path in item.files():
        if not path.name.startswith(".") and path.suffix not in (".part", ".lock"):
            if path.suffix == ".whl" and not seals.seal_of(path).is_file() and holds_together(path):
                seals.seal_file(path)  # an older version has kept it
            yield path, seals.complaint_of_file(path)


_LOOKS: Mapping[str, Callable[[Item], Iterator[tuple[Path, str]]]] = {
    "exports": _look_at_export, "conversions": _look_at_conversion, "tokenizers": _look_at_tokenizer,
    "results": _look_at_results, "downloads": _look_at_download,
}  # fmt: skip


def _complaint_of_note(path: Path) -> str:
    try:
        seals.read_sealed(path)
    except FileNotFoundError:
        return ""  # deleted meanwhile
    except (OSError, seals.BrokenSeal) as error:
        return str(error)
    return ""


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0
