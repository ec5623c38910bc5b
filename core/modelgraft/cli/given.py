"""Values of inputs as words of the command line: `image=cat.png`, `text=Hello`, `text=@file.txt`, `labels=a,b,c`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, Any

from modelgraft.checkpoints.tensor_files import ENDINGS, read_json, read_tensor_file
from modelgraft.errors import InputError, choices, nearest
from modelgraft.graph import GraphInput
from modelgraft.ports import ListOf, Modality, Port, PortType, Tensor

TEXT_BYTES = 16 * 2**20  # a prompt of millions of words: more than any model reads
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
    if port.tensor is not None and (len(port.types) == 1 or word.lower().endswith(ENDINGS)):
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
    """A string, or with `@` the contents of a file; `@-` is stdin, and `@@` a string that starts with `@`.

    Lines of a file end as they end in a program, whatever system wrote it: `\\r\\n` is `\\n`, and the last one is left off.
    """
    if word.startswith("@@") or not word.startswith("@"):
        return word.removeprefix("@")
    content = _content(word[1:], label)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        other = "; it looks like UTF-16: save it as UTF-8" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        found = f"byte {error.start} is {content[error.start]:#04x}{other}"
        raise InputError(f"{label}: the file '{word[1:]}' is no UTF-8 text: {found}") from error
    return text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n")


def _content(file: str, label: str) -> bytes:
    try:
        with open_stdin() if file == "-" else Path(file).expanduser().open("rb") as stream:
            content = stream.read(TEXT_BYTES + 1)
    except (OSError, ValueError, RuntimeError) as error:  # a NUL in the name is a ValueError, no home folder a RuntimeError
        raise InputError(f"{label}: the file '{file}' cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(content) > TEXT_BYTES:
        raise InputError(f"{label}: the file '{file}' has more than {TEXT_BYTES:,} bytes of text; give a part of it")
    return content


def open_stdin() -> AbstractContextManager[IO[bytes]]:
    """The standard input, which stays open."""
    return nullcontext(sys.stdin.buffer)


def _read_list(kind: ListOf, word: str, label: str) -> list[Any]:
    """JSON, `a,b,c`, or `@FILE` with one entry per line. An entry of text stands for itself: no `@` in it opens a file."""
    text = read_text(word, label)
    if text.lstrip().startswith("["):
        found = _read_json(text, label)
        return list(found) if isinstance(found, list) else [found]
    entries = text.split("\n") if word.startswith("@") and not word.startswith("@@") else text.split(",")
    return [_read_entry(kind.item, entry.strip(), label) for entry in entries if entry.strip()]


def _read_entry(kind: PortType, entry: str, label: str) -> Any:
    return entry if isinstance(kind, Modality) and kind.name in ("text", "label") else _read_record(kind, entry, label)


def _read_tensor(word: str, label: str) -> Any:
    if word.lstrip().startswith(("[", "{")) or word.lstrip("-").replace(".", "", 1).isdigit():
        return _read_json(word, label)
    if not word.lower().endswith(ENDINGS):
        raise InputError(f"{label}: found '{word}', wanted a tensor: a file that ends in {', '.join(ENDINGS)}, or numbers such as [[1, 2]]")
    return read_tensor_file(Path(word).expanduser(), label=label)


def _read_json(text: str, label: str) -> Any:
    try:
        return read_json(text)
    except ValueError as error:
        raise InputError(f"{label}: this is no JSON: {error}") from error


def _batch(name: str, values: list[Any]) -> Any:
    if any(hasattr(value, "shape") for value in values):
        raise InputError(f"input '{name}' is a tensor and given {len(values)} times; its batch is its first axis: give one tensor")
    return values
