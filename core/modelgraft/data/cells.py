"""Records as text: a cell of a table, or a word: text as it is, the name of a file, `a,b,c`, or JSON."""

from __future__ import annotations

from typing import Any

from modelgraft.kernel.words.errors import InputError
from modelgraft.kernel.words.ports import ListOf, Modality, Port, PortType, Tensor
from modelgraft.records.homes import home_read
from modelgraft.records.record_type import Types, from_json
from modelgraft.records.tensor_files import ARRAYS, read_tensor_file


def read_cell(name: str, port: Port, cell: str, types: Types) -> Any:
    """Read one cell of a table as its input wants it: text as it is, the name of a file, `a,b,c`, or JSON."""
    label = f"input '{name}'"
    if is_tensor(port, cell):
        return read_tensor(cell, label)
    return read_record(record_kind(port), cell, label, types)


def read_record(kind: PortType, text: str, label: str, types: Types, *, is_lines: bool = False) -> Any:
    """Read the text of one record: a list as JSON, `a,b,c` or one entry per line; anything else as its type understands it."""
    if isinstance(kind, ListOf):
        return _read_list(kind, text, label, types, is_lines=is_lines)
    assert isinstance(kind, Modality), "tensors were told apart before"
    return types[kind.name].spoken(text, label)


def _read_list(kind: ListOf, text: str, label: str, types: Types, *, is_lines: bool) -> list[Any]:
    if text.lstrip().startswith("["):
        found = from_json(text, label)
        return list(found) if isinstance(found, list) else [found]
    entries = text.split("\n") if is_lines else text.split(",")
    return [read_record(kind.item, entry.strip(), label, types) for entry in entries if entry.strip()]  # `@` in an entry opens no file


def is_tensor(port: Port, word: str) -> bool:
    """Whether a text stands for a tensor at a port that takes one."""
    return port.tensor is not None and (len(port.types) == 1 or word.lower().endswith(ARRAYS))


def record_kind(port: Port) -> PortType:
    """The type of the records of a port that does not take tensors alone."""
    return next(kind for kind in port.types if not isinstance(kind, Tensor))


def read_tensor(word: str, label: str) -> Any:
    """Read a tensor: the name of a file, or numbers as JSON has them. Raises InputError for another text."""
    if word.lstrip().startswith(("[", "{")) or word.lstrip("-").replace(".", "", 1).isdigit():
        return from_json(word, label)
    if not word.lower().endswith(ARRAYS):
        raise InputError(f"{label}: found '{word}', wanted a tensor: a file that ends in {', '.join(ARRAYS)}, or numbers such as [[1, 2]]")
    return read_tensor_file(home_read(word), label=label)
