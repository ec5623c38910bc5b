"""The columns of a file of data, by a look at its beginning."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from modelgraft.data.datasets import TABLE_ENDINGS

MOST_BYTES = 1 << 20  # of the line that is looked at: a longer one is told when it is read


def columns_in(path: Path) -> tuple[str, ...] | None:
    """The names of the columns: of a table its heading, of JSON lines the keys of the first. None where that is not known."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return None
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            line = file.readline(MOST_BYTES)
        if suffix in TABLE_ENDINGS:
            return tuple(name.strip() for name in next(csv.reader([line], delimiter=TABLE_ENDINGS[suffix]), []))
        record = json.loads(line)
    except (OSError, ValueError, csv.Error):
        return None
    return tuple(record) if isinstance(record, dict) else None
