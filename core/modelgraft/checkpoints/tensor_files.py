"""Tensors that a user gives as files: .npy, .safetensors and nested lists in .json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from modelgraft.errors import InputError

ENDINGS = (".npy", ".safetensors", ".json")


def read_tensor_file(path: Path, *, label: str) -> Any:
    """Read an array (.npy), a tensor (.safetensors with one tensor) or lists of numbers (.json).

    Raises InputError with what the file is and what was wanted. Pickled arrays are refused: they can run code.
    """
    try:
        if path.suffix == ".npy":
            import numpy

            return numpy.load(path, allow_pickle=False)
        if path.suffix == ".safetensors":
            return _only_tensor(path, label)
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise InputError(f"{label}: '{path}' cannot be read as a tensor: {reason}") from error


def _only_tensor(path: Path, label: str) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise InputError(f"{label}: '{path}' cannot be read as a tensor: {error}") from error
    if len(tensors) != 1:
        raise InputError(f"{label}: '{path}' holds {len(tensors)} tensors; wanted: one")
    return next(iter(tensors.values()))
