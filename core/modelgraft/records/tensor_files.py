"""Tensors that a user gives as files: .npy, .safetensors and nested lists in .json."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import IO, Any

from modelgraft.kernel.words.errors import InputError, choices

ARRAYS = (".npy", ".safetensors", ".json")
NESTED = "lists lie within each other deeper than is read"


def read_tensor_file(path: Path, *, label: str) -> Any:
    """Read an array (.npy), a tensor (.safetensors with one tensor) or lists of numbers (.json).

    Raises InputError with what the file is and what was wanted. Pickled arrays are refused: they can run code. Nothing is
    read of an array whose header states more than the file holds.
    """
    try:
        if path.suffix.lower() == ".npy":
            with path.open("rb") as file:
                return read_npy(file)
        if path.suffix.lower() == ".safetensors":
            return _only_tensor(path, label)
        return read_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, EOFError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0] or "there is no memory for it"
        raise InputError(f"{label}: '{path}' cannot be read as a tensor: {reason}") from error


def read_json(text: str) -> Any:
    """Read JSON. Raises ValueError for what is none, is too deep, or holds a number that no float can be."""
    try:
        return json.loads(text, parse_float=_finite)
    except RecursionError as error:
        raise ValueError(NESTED) from error


def _finite(text: str) -> float:
    found = float(text)
    if math.isinf(found):
        raise ValueError(f"{text} is beyond what a float holds")
    return found


def read_npy(file: IO[bytes]) -> Any:
    """Read an array. Raises ValueError for pickled objects, and for a header that states more or less than there is."""
    import numpy

    shape, dtype = _stated(file)
    if dtype.hasobject:
        raise ValueError("it holds pickled objects, which can run code; save plain numbers")
    start = file.tell()
    present = file.seek(0, os.SEEK_END) - start
    if (stated := math.prod(shape) * dtype.itemsize) != present:
        raise ValueError(f"its header states {dtype}{list(shape)}, {stated:,} bytes, and {present:,} are there: it is cut or damaged")
    file.seek(0)
    return numpy.load(file, allow_pickle=False)


def _stated(file: IO[bytes]) -> tuple[tuple[int, ...], Any]:
    """The shape and dtype in the header of a .npy file."""
    from numpy.lib import format as npy

    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"it is of version {version[0]}.{version[1]} of the format, which is not known")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _only_tensor(path: Path, label: str) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise InputError(f"{label}: '{path}' cannot be read as a tensor: {error}") from error
    if len(tensors) != 1:
        raise InputError(f"{label}: '{path}' holds {len(tensors)} tensors ({choices(tensors, most=6)}); wanted: one")
    return next(iter(tensors.values()))
