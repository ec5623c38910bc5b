"""Weights as tensors: memory-mapped, by their key in a part, read when they are asked for.

Imports torch and safetensors inside the functions that need them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelgraft.kernel.words.errors import Problem, SourceError, choices
from modelgraft.kernel.words.source import NO_WEIGHTS_HINT, Source
from modelgraft.sources import (
    archives,
    collections,
    conversions,
    hub,
    numpy_files,
    row_tables,
    source_proofs,
)
from modelgraft.sources.headers import damaged, read_header, start_of
from modelgraft.sources.lacking import why_none
from modelgraft.sources.progress import Listener
from modelgraft.sources.source_proofs import NO_PROOF, Proving
from modelgraft.sources.source_view import SourceView, viewed
from modelgraft.sources.views import converted, is_of_layout, settle

if TYPE_CHECKING:
    from torch import Tensor

    from modelgraft.sources.published_blocks import PublishedBlocks
    from modelgraft.sources.row_tables import Table


def open(source: Source, *, offline: bool, progress: Listener | None = None) -> Weights:
    """Open the weights of a source: fetch what is missing, convert what needs a reader, map what is there.

    Raises SourceError: `not-cached`, `fetch-failed`, `no-weights`, `source-damaged`, `unsafe-pickle`, and those of `sources.view`.
    """
    view = viewed(source)
    ready = _at_hand(view, offline=offline, progress=progress)
    if not ready.weight_files:
        raise SourceError(Problem("no-weights", why_none(ready), hint=NO_WEIGHTS_HINT))
    return Weights(ready, source_proofs.of(ready, offline=offline) if ready is view else NO_PROOF)


def make_ready(view: SourceView) -> None:
    """Convert what needs a reader of a source whose file is on this machine. Raises SourceError as `open` does."""
    if (file := _file_of(view, offline=True, progress=None)) is not None:
        converted(view, file)


def _at_hand(view: SourceView, *, offline: bool, progress: Listener | None) -> SourceView:
    """The same source, with everything on this machine and in a form that can be mapped."""
    ref = view.ref
    if (file := _file_of(view, offline=offline, progress=progress)) is not None:
        return settle(view, file=file)
    if ref.kind == "hub" and not view.has_weights and not (offline or hub.is_offline()):
        return settle(view, folder=hub.download(ref.name, ref.revision, weights=True))
    return view


def _file_of(view: SourceView, *, offline: bool, progress: Listener | None) -> Path | None:
    """The file that a source is to be settled on, fetched where it is not here, and the one that the user means; None: it is settled."""
    ref = view.ref
    if ref.kind == "archive" and view.folder is None and view.file is None:
        beside = conversions.NEIGHBOURS if view.reader or is_of_layout(ref) else ()
        return archives.fetch(ref, offline=offline, progress=progress, beside=beside)
    if view.unread is not None:
        source_proofs.refuse_other(view.unread, ref.sha256)
    return view.unread


class Weights:
    """The tensors of one part of a source. Closing is not needed: files are unmapped with the last tensor.

    What is kept of the source is whole once a tensor, or the folder, was asked for; of a table its own bytes are, of a home what lies
    beside the weights.
    """

    def __init__(self, view: SourceView, proving: Proving = NO_PROOF) -> None:
        self.view, self._proving = view, proving

    def begin(self) -> None:
        """Begin to look at every byte, beside what comes before the first tensor. Who reads a table alone has no need of the rest."""
        self._proving.begin()

    @property
    def folder(self) -> Path:
        """The folder in Hugging Face layout that holds config.json and tokenizer files; of a single file, where it lies."""
        self._proving.whole()
        return self._folder()

    @property
    def home(self) -> Path:
        """The folder as those need it who read no weights of it: configs and tokenizer files are whole."""
        self._proving.beside_weights()
        return self._folder()

    def _folder(self) -> Path:
        folder = self.view.folder
        return collections.home_of(folder, self.view.part) if folder is not None else self.view.weight_files[0].parent

    @property
    def file(self) -> Path:
        """The first file of weights."""
        self._proving.whole()
        return self.view.weight_files[0]

    def keys(self) -> tuple[str, ...]:
        """The keys of the part, in the order of the files."""
        return tuple(self._keys)

    def all_keys(self) -> tuple[str, ...]:
        """The keys of the whole source as they stand in the files."""
        return tuple(self._files)

    def sub(self, part: str) -> Weights:
        """The tensors of another part of the same source; "" is the whole. Raises SourceError `unknown-part`."""
        return Weights(self.view.at(part), self._proving)

    def shape(self, key: str) -> tuple[int, ...] | None:
        """The shape of a tensor, or None when there is none of this key."""
        return self.view.shape(key) if self.view.keys else tuple(self.tensor(key).shape) if key in self._keys else None

    def tensor(self, key: str) -> Tensor:
        """One tensor, mapped from its file where the format allows; do not write to it. Raises SourceError `missing-keys`."""
        inside = self._inside(key)
        tensor: Tensor = self._files[inside](inside)
        return tensor

    def table(self, key: str) -> Table:
        """One matrix as numpy indexes it, mapped as `tensor` is, without torch where it lies in safetensors. Raises as `tensor` does."""
        inside = self._inside(key)
        for path in reversed(self.view.weight_files if self.view.layout is None else ()):
            prefix = collections.prefix_of(path, self.view.folder)
            if path.suffix != ".safetensors" or not inside.startswith(prefix):
                continue
            name = inside.removeprefix(prefix)
            self._proving.beginning(path)
            self._proving.bytes_of(path, range(start_of(path)))  # its header
            if name in read_header(path):
                self._proving.bytes_of(path, row_tables.place_in(path, name))
                return row_tables.table_in(path, name)
        return row_tables.table_of(self.tensor(key))

    def _inside(self, key: str) -> str:
        """The key in the files of one in the part. Raises SourceError `missing-keys`."""
        if key not in self._keys:
            found = f"{self.view.text} has no tensor '{key}'; it has: {choices(self._keys)}"
            raise SourceError(Problem("missing-keys", found))
        return self._keys[key]

    def blocks(self, key: str) -> PublishedBlocks | None:
        """A matrix as the file holds it that a reader has converted, in blocks of few bits; None where it does not."""
        read = self._blocks.get(key)
        return None if read is None else read()

    @cached_property
    def _blocks(self) -> Mapping[str, Callable[[], PublishedBlocks]]:
        """What reads each; nothing where the keys are not those that the reader gave."""
        view = self.view
        if view.origin is None or view.reader is None or view.layout is not None or not view.origin.is_file():
            return {}
        found = conversions.blocks(view.origin, view.reader)
        return {key: found[inside] for key, inside in self._keys.items() if inside in found}

    def state(self) -> dict[str, Tensor]:
        """All tensors of the part by key."""
        return {key: self.tensor(key) for key in self._keys}

    @cached_property
    def _files(self) -> dict[str, Callable[[str], Any]]:  # Any: a tensor; torch is not imported here
        """Key in the files -> what reads it: the open file that holds it, or the mapping that a pickle gave."""
        self._proving.whole()
        found: dict[str, Callable[[str], Any]] = {}
        for path in self.view.weight_files:
            inside = _readers(path)
            if prefix := collections.prefix_of(path, self.view.folder):
                inside = {prefix + key: _without(prefix, read) for key, read in inside.items()}
            found.update(inside)
        return found if self.view.layout is None else self.view.layout.readers(found)

    @cached_property
    def _keys(self) -> Mapping[str, str]:
        return self.view.keys or self.view.select(self._files)


def _without(prefix: str, read: Callable[[str], Any]) -> Callable[[str], Any]:
    """What reads a tensor of a file whose keys stand behind a prefix."""
    return lambda key: read(key.removeprefix(prefix))


def _readers(path: Path) -> dict[str, Callable[[str], Any]]:
    """What reads each tensor of a file by its key."""
    if path.suffix == ".safetensors":
        return _map_safetensors(path)
    if path.suffix == ".npz":
        return numpy_files.readers(path)
    from modelgraft.sources import pickled  # half a dozen modules, for files of torch alone

    return pickled.readers(path)


def _map_safetensors(path: Path) -> dict[str, Callable[[str], Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        handle: Any = safe_open(path, framework="pt")  # Any: the package has no type annotations
        return dict.fromkeys(handle.keys(), handle.get_tensor)
    except (SafetensorError, OSError) as error:
        raise damaged(path, f"cannot be opened: {error}") from error
