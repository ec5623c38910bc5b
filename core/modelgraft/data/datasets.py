"""Data of many records: JSON lines, tables, or a folder of files; each record stands alone, also when it cannot be read.

A line that is no record is a row with its reason, and the lines after it are read as if nothing had happened. Columns that
are no inputs of the graph are kept, to be handed through to the results.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

from modelgraft.data import arrow
from modelgraft.data.cells import read_cell
from modelgraft.data.named_files import with_files_beside
from modelgraft.data.naming import Note, files_in, takes_files
from modelgraft.kernel.words.errors import InputError, choices
from modelgraft.kernel.words.graph import GraphInput
from modelgraft.records.homes import home_read
from modelgraft.records.record_type import Types

LINE_BYTES = 16 << 20  # a record names its pictures and sounds, or holds a text or a few thousand numbers
TABLE_ENDINGS = {".csv": ",", ".tsv": "\t"}
PIECE_BYTES = 1 << 20  # of a file that is hashed

Inputs = Mapping[str, GraphInput]


@dataclass(frozen=True, slots=True)
class DataRow:
    """One record of the data.

    place    where it stands: "data.jsonl:3", or the name of a file in a folder
    line     its number in the file; None in a folder
    inputs   what the graph takes of it, by name; extras  the other columns
    error    why it is no record; "" when it is one
    """

    place: str
    line: int | None
    inputs: Mapping[str, Any] = field(default_factory=dict)
    extras: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Data that can be read once or more.

    files   what it is read from; none for stdin and pipes
    read    gives the rows from the first one on
    digest  tells its content apart from that of others; None for stdin and pipes, which cannot be read again
    count   gives the number of rows, in less time than it took to make the digest; None where that is not known
    """

    files: tuple[Path, ...]
    read: Callable[[], Iterator[DataRow]]
    digest: str | None
    count: Callable[[], int | None] = lambda: None


def open_dataset(name: str, inputs: Inputs, *, note: Note, types: Types) -> Dataset:
    """Look at data by its name: a file of JSON lines, a .csv, .tsv, .parquet or .arrow table, a folder that the
    library `datasets` has saved, a folder of files, or a pattern such as `imgs/*.png`.

    note  hears what is left out of a folder

    Files that its records name are those beside it; where there are none, those that are seen from where the command runs.

    Raises InputError for data that cannot be read, or that does not say which input it is for.
    """
    path = home_read(name)
    if path.is_dir() and arrow.is_saved(path):
        return _open_arrow(path, arrow.saved_files(path), inputs, types)
    if not path.is_file() and (path.is_dir() or any(mark in name for mark in "*?[")):
        return _open_folder(name, inputs, note, types)
    if path.exists() and not path.is_file():  # a pipe, such as <(...): what was read of it is gone
        return of_stream(lambda: path.open("rb"), path.name, inputs)
    _refuse_unreadable(path)
    suffix = path.suffix.lower()
    count: Callable[[], int | None]
    if suffix in TABLE_ENDINGS:
        read, count = partial(_read_table, path, TABLE_ENDINGS[suffix], inputs, types), lambda: _count_table(path, TABLE_ENDINGS[suffix])
    elif suffix == ".parquet":
        table = arrow.parquet_table(path)
        read = partial(_read_records, lambda: arrow.parquet_records(table), path.name, inputs)
        count = lambda: int(table.metadata.num_rows)  # noqa: E731
    elif suffix == ".arrow":
        return _open_arrow(path, (path,), inputs, types)
    else:
        read, count = partial(_read_json_lines, lambda: path.open("rb"), path.name, inputs), lambda: _count_lines(path)
    beside = lambda: with_files_beside(read(), path.parent, inputs, types)  # noqa: E731
    return Dataset((path,), beside, _digest_of((path,)), count)


def _open_arrow(path: Path, files: tuple[Path, ...], inputs: Inputs, types: Types) -> Dataset:
    arrow.require_arrow(path)
    read = partial(_read_records, lambda: arrow.arrow_records(files), path.name, inputs)
    folder = path if path.is_dir() else path.parent
    return Dataset(files, lambda: with_files_beside(read(), folder, inputs, types), _digest_of(files), lambda: arrow.count_arrow(files))


def of_stream(start: Callable[[], IO[bytes]], name: str, inputs: Inputs) -> Dataset:
    """JSON lines from what can be read once, such as a pipe; `start` opens it."""
    return Dataset((), partial(_read_json_lines, start, name, inputs), None)


def _refuse_unreadable(path: Path) -> None:
    try:
        with path.open("rb"):
            return
    except (OSError, ValueError) as error:
        raise InputError(f"the data '{path}' cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _digest_of(files: tuple[Path, ...]) -> str:
    """A digest of the names and contents of files."""
    state = hashlib.sha256()
    whole = [inner for path in files for inner in (sorted(path.iterdir()) if path.is_dir() else (path,))]  # a folder of frames is a record
    for path in whole:
        name = path.name.encode("utf-8", "surrogateescape") if len(whole) > 1 else b""
        try:
            state.update(b"%d %s %d " % (len(name), name, path.stat().st_size))
            with path.open("rb") as file:
                while chunk := file.read(PIECE_BYTES):
                    state.update(chunk)
        except OSError as error:
            state.update(b"unreadable %d" % (error.errno or 0))  # its row tells it
    return state.hexdigest()


# -- JSON lines ---------------------------------------------------------------------------------------------------------


def _read_json_lines(start: Callable[[], IO[bytes]], name: str, inputs: Inputs) -> Iterator[DataRow]:
    with start() as file:
        for number, line in enumerate(_lines(file), 1):
            place = f"{name}:{number}"
            try:
                record = _record(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
            except InputError as error:
                yield DataRow(place, number, error=str(error))
            else:
                if record is not None:
                    yield _row(place, number, record, inputs)


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """The lines of a file; of one that is too long, a part that is longer than is taken."""
    while line := file.readline(LINE_BYTES + 2):
        yield line
        rest = line
        while len(rest) > LINE_BYTES and not rest.endswith(b"\n"):
            rest = file.readline(LINE_BYTES + 2)


def _count_lines(path: Path) -> int:
    """How many rows a file of JSON lines has: empty lines are none."""
    with path.open("rb") as file:
        return sum(not line.isspace() for line in _lines(file))


def _record(line: bytes) -> dict[str, Any] | None:
    """The record in a line; None for an empty line. Raises InputError for one that is none."""
    if len(line) > LINE_BYTES:
        raise InputError(f"this line is longer than {LINE_BYTES >> 20} MiB; name pictures and sounds by their files, and cut texts")
    if not line.strip():
        return None
    try:
        found = json.loads(line.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_without_twins)
    except UnicodeDecodeError as error:
        raise InputError(f"this line is no UTF-8 text: byte {error.start} is {line[error.start]:#04x}") from error
    except RecursionError as error:
        raise InputError("this line is no JSON that can be read: it is nested too deep") from error
    except ValueError as error:
        raise InputError(f"this line is no JSON: {error}") from error
    if not isinstance(found, dict):
        kind = {"list": "a list", "str": "a text", "NoneType": "null"}.get(type(found).__name__, f"the value {found!r}"[:60])
        raise InputError(f'found {kind}, wanted one record per line, such as {{"image": "cat.png"}}')
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number in JSON")


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"'{next(name for name in names if names.count(name) > 1)}' stands in it twice")
    return found


def _row(place: str, line: int, record: Mapping[str, Any], inputs: Inputs) -> DataRow:
    taken = {name: value for name, value in record.items() if name in inputs}
    return DataRow(place, line, taken, {name: value for name, value in record.items() if name not in inputs})


# -- tables -------------------------------------------------------------------------------------------------------------


def _read_table(path: Path, delimiter: str, inputs: Inputs, types: Types) -> Iterator[DataRow]:
    """Rows of a table with a heading. A cell is text, the name of a file, or JSON, as its input wants it; an empty one is left out."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter)
        heading = _heading(reader, path)
        while True:
            try:
                cells = next(reader, None)
            except csv.Error as error:
                yield DataRow(f"{path.name}:{reader.line_num}", reader.line_num, error=f"this row cannot be read: {error}")
                continue
            if cells is None:
                return
            if cells:
                yield _table_row(f"{path.name}:{reader.line_num}", reader.line_num, heading, cells, inputs, types)


def _count_table(path: Path, delimiter: str) -> int | None:
    """How many rows a table has below its heading; None for one that cannot be read to its end."""
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            return max(sum(bool(cells) for cells in csv.reader(file, delimiter=delimiter)) - 1, 0)
    except csv.Error:
        return None


def _heading(reader: Iterator[list[str]], path: Path) -> list[str]:
    try:
        heading = [name.strip() for name in next(reader, [])]
        "".join(heading).encode()
    except (csv.Error, UnicodeEncodeError) as error:
        raise InputError(f"the data '{path}' has a first row that cannot be read as a heading: {error}") from error
    if not any(heading):
        raise InputError(f"the data '{path}' has no heading: its first row names the columns")
    if twice := [name for name in heading if heading.count(name) > 1]:
        raise InputError(f"the data '{path}' has the column '{twice[0]}' twice")
    return heading


def _table_row(place: str, line: int, heading: list[str], cells: list[str], inputs: Inputs, types: Types) -> DataRow:
    if len(cells) != len(heading):
        return DataRow(place, line, error=f"this row has {len(cells)} cells, and the heading {len(heading)}")
    try:
        "".join(cells).encode()
        given = {name: cell for name, cell in zip(heading, cells, strict=True) if cell or name not in inputs}
        taken = {name: read_cell(name, inputs[name].port, cell, types) for name, cell in given.items() if name in inputs}
    except UnicodeEncodeError as error:
        return DataRow(place, line, error=f"this row is no UTF-8 text: it holds {error.object[error.start]!a}")
    except InputError as error:
        return DataRow(place, line, error=str(error))
    return DataRow(place, line, taken, {name: cell for name, cell in given.items() if name not in inputs})


def _read_records(start: Callable[[], Iterator[dict[str, Any]]], name: str, inputs: Inputs) -> Iterator[DataRow]:
    """Rows of an Arrow table; pictures and sounds are names of files, bytes, or mappings with `bytes` or `path`."""
    for number, record in enumerate(start(), 1):
        row = _row(f"{name}:{number}", number, record, inputs)
        there = {key: _medium(value) for key, value in row.inputs.items() if value is not None}
        yield DataRow(row.place, number, there, row.extras)


def _medium(value: Any) -> Any:
    """What a table of pictures or sounds holds for each: its bytes, else its path."""
    if isinstance(value, Mapping) and set(value) == {"bytes", "path"}:
        return value["bytes"] if value["bytes"] is not None else value["path"]
    return value


# -- folders ------------------------------------------------------------------------------------------------------------


def _open_folder(name: str, inputs: Inputs, note: Note, types: Types) -> Dataset:
    takers = {item.name: item for item in inputs.values() if takes_files(item.port, types)}
    asked = {item.name for item in inputs.values() if not item.has_default and not item.port.optional}
    if len(takers) > 1:
        takers = {key: item for key, item in takers.items() if key in asked}
    if len(takers) != 1 or asked - set(takers):
        need = choices(f"{item.name} ({item.port})" for item in inputs.values())
        hint = 'write a file of JSON lines, one record per line, such as {"image": "imgs/cat.png", "prompt": "..."}'
        raise InputError(f"the data '{name}' is a folder of files, which can fill one input alone, and the graph takes: {need}; {hint}")
    ((key, item),) = takers.items()
    files = tuple(Path(file) for file in files_in(name, item.port, f"the data '{name}'", note=note, types=types))
    rows = [DataRow(str(file), None, {key: str(file)}, {"file": str(file)}) for file in files]
    return Dataset(files, lambda: iter(rows), _digest_of(files), lambda: len(rows))
