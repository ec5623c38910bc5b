"""Arrow tables: Parquet, Arrow files, and folders that the library `datasets` has saved; some rows of them are in memory at a time.

A saved folder holds Arrow files, which are mapped, and `state.json`, which lists them in their order. `datasets` itself is not needed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from modelgraft.kernel.words.errors import InputError, choices

ROWS = 64  # that are in memory as Python values: a picture in each may have megabytes
STATE, SPLITS = "state.json", "dataset_dict.json"  # of one data set, and of several by name
FILE_MAGIC = b"ARROW1"  # of Arrow files; what `datasets` writes are streams

ArrowRow = dict[str, Any]  # Any: what a table holds


def parquet_table(path: Path) -> Any:  # Any: pyarrow has no types, and need not be installed
    """A Parquet table that is open. Raises InputError."""
    try:
        from pyarrow import parquet  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError as error:
        raise InputError(f"the data '{path}' is a Parquet table, which pyarrow reads: pip install 'modelgraft[parquet]'") from error
    try:
        return parquet.ParquetFile(path)
    except (OSError, ValueError) as error:
        raise InputError(f"the data '{path}' is no Parquet table that can be read: {str(error).partition(chr(10))[0]}") from error


def parquet_records(table: Any) -> Iterator[ArrowRow]:  # Any: as above
    """The rows of a Parquet table."""
    return (record for batch in table.iter_batches(batch_size=ROWS) for record in batch.to_pylist())


def is_saved(path: Path) -> bool:
    """Whether a folder was saved by `datasets`."""
    return (path / STATE).is_file() or (path / SPLITS).is_file()


def saved_files(path: Path) -> tuple[Path, ...]:
    """The Arrow files of a saved folder, in their order. Raises InputError."""
    if not (path / STATE).is_file():
        there = sorted(entry.name for entry in path.iterdir() if (entry / STATE).is_file())
        one = path / there[0] if there else path
        raise InputError(f"the data '{path}' are several data sets: {choices(there)}; name one, such as {one}")
    try:
        state = json.loads((path / STATE).read_text(encoding="utf-8"))
        files = tuple(path / entry["filename"] for entry in state["_data_files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"the data '{path}' cannot be read: {STATE} does not list its files ({error})") from error
    if state.get("_indices_files") or state.get("_indices_data_files"):
        raise InputError(f"the data '{path}' are a choice among the rows in their files; call flatten_indices() before saving them")
    if gone := next((file for file in files if not file.is_file()), None):
        raise InputError(f"the data '{path}' are not whole: there is no {gone.name}")
    return files


def arrow_records(files: Sequence[Path]) -> Iterator[ArrowRow]:
    """The rows of Arrow files. Raises InputError for one that cannot be read."""
    for path in files:
        for batch in _batches(path):
            for start in range(0, batch.num_rows, ROWS):
                yield from batch.slice(start, ROWS).to_pylist()


def count_arrow(files: Sequence[Path]) -> int:
    """How many rows Arrow files have; their values are not looked at."""
    return sum(int(batch.num_rows) for path in files for batch in _batches(path))


def require_arrow(path: Path) -> None:
    """Raise InputError where pyarrow is not installed."""
    try:
        import pyarrow  # type: ignore[import-not-found, import-untyped, unused-ignore]  # noqa: F401
    except ImportError as error:
        raise InputError(f"the data '{path}' are Arrow tables, which pyarrow reads: pip install 'modelgraft[datasets]'") from error


def _batches(path: Path) -> Iterable[Any]:  # Any: as above
    import pyarrow

    try:
        with pyarrow.memory_map(str(path)) as source, path.open("rb") as file:
            if file.read(len(FILE_MAGIC)) != FILE_MAGIC:
                yield from pyarrow.ipc.open_stream(source)
                return
            reader = pyarrow.ipc.open_file(source)
            yield from (reader.get_batch(number) for number in range(reader.num_record_batches))
    except (OSError, ValueError) as error:
        raise InputError(f"the data '{path}' are no Arrow table that can be read: {str(error).partition(chr(10))[0]}") from error
