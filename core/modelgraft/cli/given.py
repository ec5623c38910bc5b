"""Values of inputs as words of the command line: `image=cat.png`, `text=Hello`, `text=@file.txt`, `labels=a,b,c`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelgraft.checkpoints.tensor_files import ENDINGS, read_tensor_file
from modelgraft.errors import InputError, choices, nearest
from modelgraft.graph import GraphInput
from modelgraft.ports import ListOf, Modality, Port, PortType, Tensor

# Records that are files; the API reads them.
FILES = frozenset({"image", "audio", "video", "depth", "thermal", "imu"})
# Records with a structure: JSON, or @FILE with JSON.
STRUCTURED = frozenset({"conversation", "boxes"})


def read_given(words: Sequence[tuple[str, str]], inputs: Mapping[str, GraphInput]) -> dict[str, Any]:
    """Read `--input name=value` words; a name that is given several times makes a batch.

    Raises InputError for a name that is no input, and for a file that cannot be read.
    """
    gathered: dict[str, list[Any]] = {}
    for name, word in words:
        if name not in inputs:
            raise InputError(f"the graph has no input '{name}'; it has: {choices(inputs)}. {nearest(name, inputs)}".strip())
        gathered.setdefault(name, []).append(read_word(name, inputs[name].port, word))
    return {name: values[0] if len(values) == 1 else _batch(name, values) for name, values in gathered.items()}


def read_word(name: str, port: Port, word: str) -> Any:
    """Read one value as its port wants it."""
    label = f"input '{name}'"
    if port.tensor is not None and (len(port.types) == 1 or word.endswith(ENDINGS)):
        return _read_tensor(word, label)
    return _read_record(next(kind for kind in port.types if not isinstance(kind, Tensor)), word, label)


def _read_record(kind: PortType, word: str, label: str) -> Any:
    if isinstance(kind, ListOf):
        return _read_list(kind, word, label)
    assert isinstance(kind, Modality), "tensors were told apart before"
    if kind.name in FILES:
        return word
    text = read_text(word, label)
    if kind.name in STRUCTURED or (kind.name not in ("text", "label") and text.lstrip()[:1] in ("[", "{")):
        is_words = kind.name == "conversation" and text.lstrip()[:1] not in ("[", "{")
        return text if is_words else _read_json(text, label)
    return text


def read_text(word: str, label: str) -> str:
    """A string, or with `@` the contents of a file; `@-` is stdin, and `@@` a string that starts with `@`."""
    if word.startswith("@@") or not word.startswith("@"):
        return word.removeprefix("@")
    try:
        content = sys.stdin.buffer.read() if word == "@-" else Path(word[1:]).expanduser().read_bytes()
        return content.decode("utf-8-sig").removesuffix("\n")
    except OSError as error:
        raise InputError(f"{label}: the file '{word[1:]}' cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{label}: the file '{word[1:]}' is no UTF-8 text: byte {error.start} is {content[error.start]:#04x}") from error


def _read_list(kind: ListOf, word: str, label: str) -> list[Any]:
    """JSON, `a,b,c`, or `@FILE` with one entry per line."""
    text = read_text(word, label)
    if text.lstrip().startswith("["):
        found = _read_json(text, label)
        return list(found) if isinstance(found, list) else [found]
    entries = text.splitlines() if word.startswith("@") and not word.startswith("@@") else text.split(",")
    return [_read_record(kind.item, entry.strip(), label) for entry in entries if entry.strip()]


def _read_tensor(word: str, label: str) -> Any:
    if word.lstrip().startswith(("[", "{")) or word.lstrip("-").replace(".", "", 1).isdigit():
        return _read_json(word, label)
    if not word.endswith(ENDINGS):
        raise InputError(f"{label}: found '{word}', wanted a tensor: a file that ends in {', '.join(ENDINGS)}, or numbers such as [[1, 2]]")
    return read_tensor_file(Path(word).expanduser(), label=label)


def _read_json(text: str, label: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"{label}: this is no JSON: {error}") from error


def _batch(name: str, values: list[Any]) -> Any:
    if any(hasattr(value, "shape") for value in values):
        raise InputError(f"input '{name}' is a tensor and given {len(values)} times; its batch is its first axis: give one tensor")
    return values
