"""Data of suites: JSON lines and tables as `map` reads them, JSON documents of benchmarks, and the files that they name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import modelgraft as mg
from modelgraft.commands import open_dataset, types_of
from modelgraft.plugin import InputError, choices, home_read
from modelgraft_plugins.evaluating.suites import Data, Item, Note, refuse_empty

Plain = Any  # a value as JSON has it


@dataclass(frozen=True, slots=True)
class Row:
    """A record as it stands in the data.

    place  such as "dev.jsonl:3";  columns  by name;  error  why it is no record; "" when it is one
    """

    place: str
    columns: Mapping[str, Plain]
    error: str = ""


def is_document(path: Path) -> bool:
    """Whether a file is one JSON document, as benchmarks publish them, and not a record a line."""
    return path.suffix.lower() == ".json"


def document(name: str | Path, *, what: str) -> dict[str, Any]:
    """A JSON document that is a mapping. Raises InputError that says what cannot be read.

    what  it is, such as "the annotations"
    """
    path = home_read(name)
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{what} '{path}' cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{what} '{path}' is no JSON document: {error}; a file of a record per line ends in .jsonl") from error
    if not isinstance(found, dict):
        raise InputError(f"{what} '{path}' holds {type(found).__name__} at its top; wanted: a mapping")
    return found


def lists_in(found: Mapping[str, Any], path: Path, *keys: str) -> list[list[dict[str, Any]]]:
    """The lists of records under some keys of a document. Raises InputError where one is missing or holds something else."""
    lists = []
    for key in keys:
        part = found.get(key)
        if not isinstance(part, list) or not all(isinstance(one, dict) for one in part):
            raise InputError(f"the data '{path}' have no list '{key}' of records; it has: {choices(map(str, found))}")
        lists.append(part)
    return lists


def rows_of(data: str, *, note: Note) -> list[Row]:
    """The records of JSON lines, a .csv, .tsv or .parquet table, with all their columns. Raises InputError as `open_dataset` does."""
    registry = mg.Graph("data").registry
    dataset = open_dataset(data, {}, note=note, types=types_of(registry))
    return [Row(row.place, row.extras, row.error) for row in dataset.read()]


def texts_of(columns: Mapping[str, Plain], *names: str) -> list[str] | None:
    """The texts of the first of these columns that is there: a list of them, or one alone. Raises ValueError for other values."""
    name = next((one for one in names if columns.get(one) is not None), None)
    if name is None:
        return None
    value = columns[name]
    found = value if isinstance(value, list) else [value]
    if isinstance(value, str) and value.lstrip().startswith("["):  # a cell of a table
        found = json.loads(value)
    if not found or not all(isinstance(one, str) for one in found):
        raise ValueError(f"'{name}' is {value!r}; wanted: a text, or a list of texts")
    return found


def file_in(folder: Path, name: Plain, *, column: str) -> str:
    """The place of a file that a record names, beside the data or in a folder of their own. Raises ValueError for what is no name."""
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"'{column}' is {name!r}; wanted: the name of a file")
    return str(folder / home_read(name))


def folder_of(data: str, given: str | None) -> Path:
    """Where files lie that the data name: in the folder that the user gives, else beside the data."""
    return home_read(given) if given else home_read(data).parent


def as_data(data: str, items: Sequence[Item], *, files: Iterable[str | Path], media: str, option: str) -> Data:
    """Data of items that are known. Raises InputError when there are none, two of one id, or none of the files that they name is there.

    files   that were read;  media  the input that names a file;  option  that says in which folder these are
    """
    refuse_empty(data, len(items))
    _refuse_twins(data, items)
    named = [Path(item.inputs[media]) for item in items if isinstance(item.inputs.get(media), str)]
    if named and not any(path.exists() for path in named):
        raise InputError(f"none of the {len(named)} files that '{data}' names is there, such as '{named[0]}'; {option} says where they are")
    state = hashlib.sha256()
    read = tuple(home_read(file) for file in files)
    for item in items:
        state.update(
            json.dumps([item.id, item.group, item.error, dict(item.facts), _told(item.inputs)], sort_keys=True, default=repr).encode()
        )
    groups = [item.stands_with for item in items]
    return Data(files=read, digest=state.hexdigest(), items=lambda: iter(items), groups=groups)


def _refuse_twins(data: str, items: Sequence[Item]) -> None:
    """Raise InputError for two records of one id: nobody could tell their answers apart."""
    seen: dict[str, str] = {}
    for item in items:
        if item.id in seen:
            raise InputError(f"the data '{data}' have the id '{item.id}' twice: at {seen[item.id]} and {item.place}")
        seen[item.id] = item.place


def _told(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What an item gives, with the size of files: hashing those of a benchmark would take longer than a small evaluation."""
    return {name: [value, _size(value)] if isinstance(value, str) else value for name, value in inputs.items()}


def _size(name: str) -> int | None:
    try:
        return Path(name).stat().st_size
    except (OSError, ValueError):
        return None
