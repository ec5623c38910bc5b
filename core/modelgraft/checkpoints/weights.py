"""Weights as tensors: memory-mapped, by their key in a part, read when they are asked for.

Imports torch and safetensors inside the functions that need them.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelgraft.checkpoints import archives, conversions, hub, weight_files
from modelgraft.checkpoints.headers import damaged
from modelgraft.checkpoints.progress import Progress
from modelgraft.checkpoints.sources import SourceView, settle
from modelgraft.errors import Problem, SourceError, choices

if TYPE_CHECKING:
    from torch import Tensor

NO_WEIGHTS_HINT = "name a checkpoint, or ask for random ones: --init random, modelgraft.open(init='random')"


def open(view: SourceView, *, offline: bool, progress: Progress | None = None) -> Weights:
    """Open the weights of a source: fetch what is missing, convert what needs a reader, map what is there.

    Raises SourceError: `not-cached`, `fetch-failed`, `no-weights`, `source-damaged`, `unsafe-pickle`, and those of `sources.view`.
    """
    ready = _at_hand(view, offline=offline, progress=progress)
    if not ready.weight_files:
        raise SourceError(Problem("no-weights", _why_none(ready), hint=NO_WEIGHTS_HINT))
    return Weights(ready)


def _at_hand(view: SourceView, *, offline: bool, progress: Progress | None) -> SourceView:
    """The same source, with everything on this machine and in a form that can be mapped."""
    ref = view.ref
    if view.unread is not None:
        return settle(view, file=view.unread)
    if ref.kind == "archive" and view.folder is None and view.file is None:
        beside = conversions.NEIGHBOURS if view.reader else ()
        return settle(view, file=archives.fetch(ref, offline=offline, progress=progress, beside=beside))
    if ref.kind == "hub" and not view.has_weights and not (offline or hub.is_offline()):
        return settle(view, folder=hub.download(ref.name, ref.revision, weights=True))
    return view


def _why_none(view: SourceView) -> str:
    if view.is_recorded or view.ref.kind == "hub":
        return f"the weights of '{view.text}' are not on this machine: only its published config is known"
    others = weight_files.others_in(view.folder) if view.folder is not None else []
    there = f"; it has {choices(path.name for path in others)}: give the one that is meant the name model.safetensors" if others else ""
    return (
        f"{view.folder or view.text} has no file of weights (model.safetensors, model.safetensors.index.json or pytorch_model.bin){there}"
    )


class Weights:
    """The tensors of one part of a source. Closing is not needed: files are unmapped with the last tensor."""

    def __init__(self, view: SourceView) -> None:
        self.view = view

    @property
    def folder(self) -> Path:
        """The folder in Hugging Face layout that holds config.json and tokenizer files; of a single file, where it lies."""
        return self.view.folder or self.view.weight_files[0].parent

    @property
    def file(self) -> Path:
        """The first file of weights."""
        return self.view.weight_files[0]

    def keys(self) -> tuple[str, ...]:
        """The keys of the part, in the order of the files."""
        return tuple(self._keys)

    def all_keys(self) -> tuple[str, ...]:
        """The keys of the whole source as they stand in the files."""
        return tuple(self._files)

    def sub(self, part: str) -> Weights:
        """The tensors of another part of the same source; "" is the whole. Raises SourceError `unknown-part`."""
        return Weights(self.view.at(part))

    def shape(self, key: str) -> tuple[int, ...] | None:
        """The shape of a tensor, or None when there is none of this key."""
        return self.view.shape(key) if self.view.keys else tuple(self.tensor(key).shape) if key in self._keys else None

    def tensor(self, key: str) -> Tensor:
        """One tensor, mapped from its file where the format allows; do not write to it. Raises SourceError `missing-keys`."""
        if key not in self._keys:
            found = f"{self.view.text} has no tensor '{key}'; it has: {choices(self._keys)}"
            raise SourceError(Problem("missing-keys", found))
        inside = self._keys[key]
        tensor: Tensor = self._files[inside](inside)
        return tensor

    def state(self) -> dict[str, Tensor]:
        """All tensors of the part by key."""
        return {key: self.tensor(key) for key in self._keys}

    @cached_property
    def _files(self) -> dict[str, Callable[[str], Any]]:  # Any: a tensor; torch is not imported here
        """Key in the files -> what reads it: the open file that holds it, or the mapping that a pickle gave."""
        found: dict[str, Callable[[str], Any]] = {}
        for path in self.view.weight_files:
            found.update(_map_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path))
        return found

    @cached_property
    def _keys(self) -> Mapping[str, str]:
        return self.view.keys or self.view.select(self._files)


def _map_safetensors(path: Path) -> dict[str, Callable[[str], Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        handle: Any = safe_open(path, framework="pt")  # Any: the package has no type annotations
        return dict.fromkeys(handle.keys(), handle.get_tensor)
    except (SafetensorError, OSError) as error:
        raise damaged(path, f"cannot be opened: {error}") from error


def _read_pickle(path: Path) -> dict[str, Callable[[str], Any]]:
    import torch

    if conversions.is_bare_pickle(path):
        raise _unsafe(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=conversions.is_zip(path))
    except pickle.UnpicklingError as error:
        raise _unsafe(path) from error
    except Exception as error:  # bytes that are no pickle are taken for orders, and fail in any way
        raise damaged(path, f"cannot be read as tensors: {type(error).__name__}: {str(error).partition(chr(10))[0]}") from error
    for wrapper in ("state_dict", "model_state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(wrapper), dict):
            found = found[wrapper]
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise damaged(path, f"holds a {type(found).__name__} where tensors by name are wanted")
    return {key: found.__getitem__ for key, value in found.items() if isinstance(value, torch.Tensor)}


def _unsafe(path: Path) -> SourceError:
    found = f"{path} holds more than tensors, and reading it could run code: refused"
    hint = "convert it to safetensors where you trust it: safetensors.torch.save_file(state, 'model.safetensors')"
    return SourceError(Problem("unsafe-pickle", found, hint=hint))
