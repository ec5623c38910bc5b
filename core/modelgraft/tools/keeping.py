"""Everything that is kept on this machine: listed, proven, deleted. What is deleted is made again when it is needed.

    conversions  files of weights as a reader has turned them into folders
    results      results of nodes, in the folders that `--cache DIR` and `cache_dir=` have named
    downloads    packages that carry weights, and what was unpacked of them

and what plugins keep, each kind by a keeper of its own. Checkpoints that the Hugging Face tools have fetched are theirs, and
not looked at.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from modelgraft.engine import states
from modelgraft.engine.disk import DiskCache
from modelgraft.engine.meanwhile import folder_of_states
from modelgraft.kernel.shelf.registry import Registry
from modelgraft.kernel.words.errors import ModelgraftError, PluginError
from modelgraft.kernel.words.guard import contained, said
from modelgraft.sources import kept, seals
from modelgraft.sources.archives import holds_together
from modelgraft.sources.keeping import Keeper, KeptItem
from modelgraft.sources.storage import cache_in_use, cache_root, clear_leftovers, locked, named_results


@dataclass(frozen=True, slots=True)
class Broken:
    """A file or folder of something that is kept, which is not what was written."""

    item: KeptItem
    path: Path
    found: str
    is_deleted: bool


class Keeping:
    """All keepers: those of installed plugins, by the names of their kinds, and ours."""

    def __init__(self, registry: Registry) -> None:
        """Raises PluginError for a keeper that cannot be imported."""
        self.keepers: Mapping[str, Keeper] = {**{kind: _made(kind, target) for kind, target in registry.keepers.items()}, **_ours()}

    def items(self, kinds: Collection[str] | None = None) -> list[KeptItem]:
        """Everything that is kept, or some kinds of it. Raises SourceError `cache-failed` when the cache is no folder."""
        with cache_in_use():
            if cache_root().exists():
                list(cache_root().iterdir())
        return [item for kind, keeper in self.keepers.items() if kinds is None or kind in kinds for item in keeper.items()]

    def bytes_of(self, item: KeptItem) -> int:
        """What a thing takes on disk."""
        return sum(_size(path) for path in self.keepers[item.kind].files(item))

    def verify(self, item: KeptItem) -> list[Broken]:
        """Read a kept thing whole; what is broken of it is deleted, unless somebody uses it."""
        keeper = self.keepers[item.kind]
        with _held(item) as is_held:
            if not is_held:
                return []  # it is being made now, and proven by who makes it
            keeper.tidy(item)
            found = [(path, text) for path, text in keeper.complaints(item) if text and path.exists()]
            return [Broken(item, path, text, is_deleted=kept.delete(path)) for path, text in found]

    def delete(self, item: KeptItem) -> bool:
        """Delete a kept thing unless somebody makes or uses it; says whether it is gone."""
        with _held(item) as is_held:
            return is_held and self.keepers[item.kind].delete(item)


def _made(kind: str, target: str) -> Keeper:
    module, _, attribute = target.partition(":")
    try:
        with contained():
            keeper: Keeper = getattr(importlib.import_module(module), attribute)()
    except ModelgraftError:
        raise
    except Exception as error:  # code of a plugin may raise anything
        raise PluginError(f"the keeper of '{kind}' ({target}) cannot be imported: {said(error)}") from error
    return keeper


@contextmanager
def _held(item: KeptItem) -> Iterator[bool]:
    """Hold what is held while a thing is made; gives False when somebody makes it now. A cache that can only be read has no locks."""
    with ExitStack() as stack:
        try:
            is_held = stack.enter_context(locked(item.lock, waits=False))
        except OSError:
            is_held = True
        yield is_held


def forget_notes() -> None:
    """Delete what was remembered of files of the user, which is found out again, and what was told of work that nobody does any more."""
    shutil.rmtree(cache_root() / "hashes", ignore_errors=True)
    states.forget_old(folder_of_states(), seconds=0.0)


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0


# -- ours ---------------------------------------------------------------------------------------------------------------


class _Conversions(Keeper):
    """Files of weights as a reader has turned them into folders."""

    kind = "conversions"

    def items(self) -> Iterator[KeptItem]:
        for folder in sorted((cache_root() / "converted").glob("[!.]*/")):
            yield KeptItem(self.kind, folder.name, folder, _model_type(folder), folder.with_suffix(".lock"))

    def tidy(self, item: KeptItem) -> None:
        clear_leftovers(item.path.parent)
        clear_leftovers(item.path)


class _Results(Keeper):
    """Results of nodes, in the folders that users have named: the folder is theirs, and the results in it alone are kept things."""

    kind = "results"

    def items(self) -> Iterator[KeptItem]:
        for folder in named_results():
            item = KeptItem(self.kind, folder.name, folder, str(folder), cache_root() / "results" / ".lock")
            if self.files(item):
                yield item

    def files(self, item: KeptItem) -> list[Path]:
        return DiskCache(item.path, limit_bytes=0).files()

    def complaints(self, item: KeptItem) -> Iterator[tuple[Path, str]]:
        disk = DiskCache(item.path, limit_bytes=0)
        for path in disk.files():
            yield path, disk.complaint(path)

    def delete(self, item: KeptItem) -> bool:
        for path in self.files(item):
            with contextlib.suppress(OSError):
                path.unlink()
                path.parent.rmdir()
        return not self.files(item)


class _Downloads(Keeper):
    """Packages that carry weights, and what was unpacked of them."""

    kind = "downloads"

    def items(self) -> Iterator[KeptItem]:
        root = cache_root() / "archives"
        for folder in sorted(root.glob("*==*/")):
            yield KeptItem(self.kind, folder.name, folder, "package", folder / ".lock")
        for folder in sorted((root / "joined").glob("[!.]*/")):
            yield KeptItem(self.kind, folder.name, folder, "joined", folder.parent / f"{folder.name}.lock")

    def complaints(self, item: KeptItem) -> Iterator[tuple[Path, str]]:
        for path in self.files(item):
            if not path.name.startswith(".") and path.suffix not in (".part", ".lock"):
                if path.suffix == ".whl" and not seals.seal_of(path).is_file() and holds_together(path):
                    seals.seal_file(path)  # an older version has kept it
                yield path, seals.complaint_of_file(path)


def _ours() -> dict[str, Keeper]:
    return {keeper.kind: keeper for keeper in (_Conversions(), _Results(), _Downloads())}


def _model_type(folder: Path) -> str:
    try:
        return str(json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"])
    except (OSError, ValueError, KeyError, TypeError):
        return "?"
