"""What is known of a source whose weights nobody has read: its configs and, from the headers of files, names and shapes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelgraft.kernel.words.source import Source
from modelgraft.sources import (
    collections,
    config_files,
    conversions,
    lacking,
    layouts,
    named_paths,
    numpy_files,
    parts,
    seals,
    trained_files,
    weight_files,
)
from modelgraft.sources.headers import TensorHeader, read_header
from modelgraft.sources.refs import TORCH_SUFFIXES, SourceRef
from modelgraft.sources.storage import stamp_of

if TYPE_CHECKING:
    from modelgraft.sources.torch_files import TorchFile


@dataclass(frozen=True)
class SourceView:
    """What is known about a source without reading its weights.

    folder    the folder on disk in Hugging Face layout, or None;  file  the single file it is, or None
    config    the JSON config of the part;  root  the whole config.json; both empty when there is none
    boundary  files must lie below this folder, links followed; None: anywhere
    unread    a file that `reader` will turn into a folder when the weights are opened
    origin    the file that `reader` has turned into `folder`, which is kept in the cache
    reader    the weight reader (`package.module:function`) of such a file, also while it is not fetched yet
    recorded  the folder of configs that a plugin ships, in place of the real one
    layout    how files that are not in Hugging Face layout look in it; config, keys and shapes are those that they would have there
    """

    ref: SourceRef
    root: Mapping[str, Any]
    folder: Path | None = None
    file: Path | None = None
    unread: Path | None = None
    reader: str | None = None
    recorded: Path | None = None
    boundary: Path | None = None
    origin: Path | None = None
    layout: layouts.Seen | None = None

    @property
    def text(self) -> str:
        """The source as written."""
        return self.ref.text

    @property
    def kind(self) -> str:
        """Of the grammar of `from:`: hub, folder, file, preset or archive."""
        return self.ref.kind

    @property
    def named(self) -> tuple[str, ...]:
        """What tells it from other sources by name."""
        return self.ref.kind, self.ref.name, self.ref.revision, self.ref.member, self.ref.part

    @property
    def part(self) -> str:
        """The part, or "" for the whole."""
        return self.ref.part

    @property
    def is_recorded(self) -> bool:
        """The configs are those that a plugin has recorded, and there are no weights on this machine."""
        return self.recorded is not None and not self.has_weights

    @property
    def has_weights(self) -> bool:
        """There are weights on this machine."""
        return self.unread is not None or bool(self.weight_files)

    @property
    def config(self) -> Mapping[str, Any]:
        """The JSON config of the part."""
        return self.selected[0]

    @property
    def keys(self) -> Mapping[str, str]:
        """Key of the part -> key in the files; empty when the files do not say their keys without being read."""
        return self.selected[1]

    def at(self, part: str) -> SourceView:
        """The same source seen at another part; "" is the whole. Raises SourceError `unknown-part`."""
        other = replace(self, ref=replace(self.ref, part=part))
        _ = other.selected
        return other

    def json(self, name: str) -> Mapping[str, Any] | None:
        """A JSON file of the source such as `preprocessor_config.json`, or None when it has none.

        Of one file of torch: what stands beside its tensors under this name, such as `cfg` or `args`, where that is a mapping.
        """
        path = self.path(name)
        if path is None and self.layout is not None and name in self.layout.files:
            return self.layout.files[name]
        if self.file is not None:
            held = _torch_file(self.file).beside.get(name) if is_torch(self.file) else None
            return held if isinstance(held, dict) else None
        return config_files.read_json(path) if path is not None else None

    def path(self, name: str = "") -> Path | None:
        """A file of the source, if it is on this machine; without a name its folder, or the file that it is."""
        if not name:
            return self.folder or self.file or self.unread
        home = self.folder or self.recorded
        found = collections.home_of(home, self.part) / name if home is not None else None
        if found is None or not found.is_file():
            return None
        named_paths.refuse_outside(found, self.boundary, self.text)
        return found

    def shape(self, key: str) -> tuple[int, ...] | None:
        """The shape of one tensor, by its key in the part; None without weights or when there is no such tensor."""
        header = self.headers.get(key)
        return header.shape if header is not None else None

    def tensor_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shapes of all tensors of the part; empty when the files do not say them without being read."""
        return {key: header.shape for key, header in self.headers.items()}

    def select(self, files: Iterable[str]) -> Mapping[str, str]:
        """Key of the part -> key in the files, for files whose keys only their reader knows."""
        return parts.select(self.root, files, self.part, source=self.whole)[1]

    def states(self, component: str, *, is_graft: bool = False) -> Mapping[str, Any] | None:
        """The config of a component, or of an adapter, that was trained and is in the file, or None."""
        if self.file is None or self.part:
            return None
        return (trained_files.graft_in if is_graft else trained_files.config_in)(self.file, component)

    def lacks_weights(self, *, offline: bool) -> str:
        """Why it has no weights and will get none; "" where it has some, or where they are fetched when it is opened."""
        return lacking.none_to_come(self, offline=offline)

    def identity(self) -> str:
        """Tells contents apart for caching: the hash that was given, else one of the config and of the files' stamps."""
        if self.ref.sha256:
            return f"sha256:{self.ref.sha256}#{self.part}"
        named = (self.ref.kind, self.ref.name, self.ref.revision, self.ref.member)
        digest = hashlib.sha256(json.dumps([named, self.root], sort_keys=True).encode())
        home = self.folder or self.recorded
        single = self.file or self.unread
        if self.origin is not None and self.folder is not None:
            digest.update(seals.text_of(self.folder).encode())  # the same when it has to be made again
        files = [single] if single is not None else sorted(home.iterdir()) if home is not None and self.origin is None else []
        if home is not None and collections.is_collection(home):
            files += [path for name in collections.members(self.root) if (home / name).is_dir() for path in sorted((home / name).iterdir())]
        for path in files:
            if path.is_file():
                digest.update(f"\0{path.name}\0{stamp_of(path)}".encode())
        return f"files:{digest.hexdigest()}#{self.part}"

    @cached_property
    def weight_files(self) -> tuple[Path, ...]:
        """The files of weights, shards in the order of their names."""
        found: tuple[Path, ...] = (self.file,) if self.file is not None else ()
        if self.folder is not None:
            may_be_fetched = self.ref.kind == "hub"
            if collections.is_collection(self.folder):
                found = collections.weights_of(self.folder, self.root, read=config_files.read_json, may_be_fetched=may_be_fetched)
            else:
                found = weight_files.files_of(self.folder, self.root, read=self.json, may_be_fetched=may_be_fetched)
        for path in found:
            named_paths.refuse_outside(path, self.boundary, self.text)
        return found

    @cached_property
    def headers(self) -> Mapping[str, TensorHeader]:
        """The tensors of the part by their key in the part; empty for files whose headers cannot be read lightly."""
        return {key: self._file_headers[inside] for key, inside in self.keys.items()}

    @cached_property
    def _file_headers(self) -> Mapping[str, TensorHeader]:
        return self.raw_headers if self.layout is None else self.layout.headers(self.raw_headers)

    @cached_property
    def raw_headers(self) -> Mapping[str, TensorHeader]:
        """The tensors of the whole by their keys in the files, whatever their layout."""
        found: dict[str, TensorHeader] = {}
        for path in self.weight_files:
            prefix = collections.prefix_of(path, self.folder)
            found.update({prefix + key: header for key, header in headers_of(path).items()})
        return found

    @cached_property
    def selected(self) -> tuple[Mapping[str, Any], parts.Keys]:
        """The config of the part, and the keys of its tensors. Raises SourceError `unknown-part`."""
        return parts.select(self.root, self._file_headers, self.part, source=self.whole)

    @property
    def whole(self) -> str:
        """The text that names the whole source, to be put before `#part`."""
        return self.ref.whole or self.text


def is_torch(path: Path) -> bool:
    """A file that torch.save or TorchScript wrote, of which something can be said without reading it whole."""
    is_named = path.name.endswith(TORCH_SUFFIXES) or weight_files.is_generator(path)
    return is_named and conversions.is_pickle(path) and not conversions.is_bare_pickle(path)


def headers_of(path: Path) -> Mapping[str, TensorHeader]:
    """The headers of the tensors of a file by key; empty for a file that does not say them without being read."""
    if path.suffix == ".safetensors":
        return read_header(path)
    if path.suffix == ".npz":
        return numpy_files.look(path)
    return {key: stored.header for key, stored in _torch_file(path).tensors.items()} if is_torch(path) else {}


def _torch_file(path: Path) -> TorchFile:
    """What a file of torch says; what reads it is imported for the first, because few sources are such files."""
    from modelgraft.sources import torch_files

    return torch_files.look(path)


def viewed(source: Source) -> SourceView:
    """The view that a source is, for those who open its files."""
    assert isinstance(source, SourceView), "whatever is loaded was checked against the sources of a machine"
    return source
