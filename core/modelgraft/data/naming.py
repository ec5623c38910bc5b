"""Media by the names of their files: one file, all of a folder, or those that match a pattern."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable
from pathlib import Path

from modelgraft.kernel.words.errors import InputError, choices
from modelgraft.kernel.words.ports import ListOf, Modality, Port, PortType
from modelgraft.records.homes import home_read
from modelgraft.records.record_type import Types

Note = Callable[[str], None]


def takes_files(port: Port, types: Types) -> bool:
    """Whether records of a port are files, such as pictures and sounds."""
    return any(is_file(kind, types) for kind in port.types)


def is_file(kind: PortType, types: Types) -> bool:
    """Whether records of a type are files."""
    return isinstance(kind, Modality) and types[kind.name].is_file


def files_in(word: str, port: Port, label: str, *, note: Note, types: Types) -> tuple[str, ...]:
    """The files that a word names: itself, those of a folder, or those that match a pattern; numbers in names in their order.

    Of a folder those that end as the port's files do; `note` hears how many others there are. Raises InputError for none.
    """
    if not word:
        raise InputError(f"{label}: found nothing, wanted a file")
    if word.startswith("pypi:") or "://" in word or "\0" in word:
        return (word,)
    path = home_read(word)
    try:
        if path.is_dir():
            return _files_of_folder(path, word, port, label, note, types)
    except OSError as error:
        raise InputError(f"{label}: '{word}' cannot be read: {error.strerror}") from error
    if any(mark in word for mark in "*?[") and not path.exists():
        found = [name for name in glob.glob(str(path), recursive=True) if Path(name).is_file()]  # noqa: PTH207 patterns may be absolute
        if not found:
            raise InputError(f"{label}: no file matches '{word}'")
        return tuple(sorted(found, key=_by_numbers))
    return (word,)


def _files_of_folder(path: Path, word: str, port: Port, label: str, note: Note, types: Types) -> tuple[str, ...]:
    kinds = [types[name] for kind in port.types if (name := item_of(kind))]
    if any(kind.is_folder(path) for kind in kinds):
        return (word,)
    endings = [ending for kind in kinds for ending in kind.reads]
    there = [entry for entry in path.iterdir() if not entry.name.startswith(".") and entry.is_file()]
    found = [str(entry) for entry in there if not endings or entry.suffix.lower() in endings]
    if not found:
        wanted = f"files that end in {', '.join(dict.fromkeys(endings))}" if endings else "files"
        raise InputError(f"{label}: the folder '{word}' has none; wanted: {wanted}")
    if len(found) < len(there):
        others = sorted(entry.name for entry in there if str(entry) not in set(found))
        note(f"{label}: {len(others)} of {len(there)} files in '{word}' are left out by their endings: {choices(others, most=4)}")
    return tuple(sorted(found, key=_by_numbers))


def item_of(kind: PortType) -> str:
    """The name of the record type, of a list that of its entries; "" for tensors."""
    inner = kind.item if isinstance(kind, ListOf) else kind
    return inner.name if isinstance(inner, Modality) else ""


def _by_numbers(name: str) -> list[tuple[int, int, str]]:
    """Order of names in which 2 comes before 10."""
    pieces = re.split(r"([0-9]+)", name)
    return [(0, int(piece), piece) if index % 2 else (1, 0, piece.casefold()) for index, piece in enumerate(pieces)] + [(1, 0, name)]
