"""Tensors of files that torch has written: archives, files before them, TorchScript. Imports torch inside the functions that need it."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modelgraft.kernel.words.errors import Problem, SourceError
from modelgraft.sources import conversions, former_files, pickles, scripted, torch_files
from modelgraft.sources.headers import damaged
from modelgraft.sources.source_view import is_torch

SETTINGS = frozenset({"argparse.Namespace", "typing.Any"})  # classes that trainings keep their settings in
SETTINGS_OF = ("omegaconf.", "fairseq.dataclass.", "fairseq.tasks.", "fairseq.models.")


def readers(path: Path) -> dict[str, Callable[[str], Any]]:
    """What reads each tensor of a file by its key. Raises SourceError `unsafe-pickle`, `source-damaged`."""
    return scripted.readers(path) if is_torch(path) and torch_files.look(path).is_script else _mapped(path)


def _mapped(path: Path) -> dict[str, Callable[[str], Any]]:
    import torch

    if conversions.is_bare_pickle(path):
        raise _unsafe(path)
    pickles.check(path)
    if mapped := former_files.readers(path) if is_torch(path) else {}:
        return mapped
    try:
        with torch.serialization.safe_globals(_settings(path)):
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=conversions.is_zip(path))
    except pickle.UnpicklingError as error:
        raise _unsafe(path) from error
    except Exception as error:  # bytes that are no pickle are taken for orders, and fail in any way
        raise damaged(path, f"cannot be read as tensors: {type(error).__name__}: {str(error).partition(chr(10))[0]}") from error
    for wrapper in torch_files.WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(wrapper), dict):
            found = found[wrapper]
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise damaged(path, f"holds a {type(found).__name__} where tensors by name are wanted")
    return {key: found.__getitem__ for key, value in found.items() if isinstance(value, torch.Tensor)}


def _settings(path: Path) -> list[Any]:  # Any: torch's own form, (class, name)
    """Things that settings of a training are written with, read as inert ones; every other class is refused."""
    named = torch_files.look(path).named if is_torch(path) else frozenset[str]()
    return [(torch_files.Kept, name) for name in sorted(named) if name in SETTINGS or name.startswith(SETTINGS_OF)]


def _unsafe(path: Path) -> SourceError:
    found = f"{path} holds more than tensors, and reading it could run code: refused"
    hint = "convert it to safetensors where you trust it: safetensors.torch.save_file(state, 'model.safetensors')"
    return SourceError(Problem("unsafe-pickle", found, hint=hint))
