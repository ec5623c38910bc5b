"""Lines with vectors, as `modelgraft map` writes them, for the commands that make memories of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelgraft.commands import file_aside, quiet_libraries
from modelgraft.plugin import InputError, ModelgraftError

if TYPE_CHECKING:
    from torch import Tensor


def read_lines(path: Path, vectors: Sequence[str]) -> list[dict[str, Any]]:
    """Lines with a `caption` and, in each of these columns, a list with one vector: [[0.1, ...]].

    Raises InputError: the file cannot be read, has no line, or one without these.
    """
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not texts:
        raise InputError(f"{path} has no line")
    return [_line(text, vectors, f"{path}:{number}") for number, text in enumerate(texts, 1)]


def _line(text: str, vectors: Sequence[str], place: str) -> dict[str, Any]:
    try:
        line = json.loads(text)
    except ValueError as error:
        raise InputError(f"{place} is no JSON: {error}") from error
    if not isinstance(line, dict) or not isinstance(line.get("caption"), str):
        raise InputError(f"{place} has no caption, as a text")
    for name in vectors:
        found = line.get(name)
        if not (isinstance(found, list) and len(found) == 1 and isinstance(found[0], list) and found[0]):
            raise InputError(f"{place} has no `{name}`, as a list with one vector: [[0.1, ...]]; `modelgraft map` writes it")
    return line


def save(tensors: Mapping[str, Tensor], out: Path) -> None:
    """Write a file of tensors, which appears whole. Raises InputError where it cannot be written."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        with file_aside(out) as aside:
            save_file(dict(tensors), aside)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{out} cannot be written: {error}") from error


def told(work: Callable[[], str]) -> None:
    """Do the work of a command and print what it says; an error is one sentence, and exit code 1. Libraries show no bars."""
    quiet_libraries()
    try:
        print(work())  # noqa: T201 a command
    except ModelgraftError as error:
        sys.exit(f"error: {error}")
