"""What a table is: a module with one function that gives rows, run alone or with all others by `bench.py`.

    python -m benchmarks.growth [--quick] [--minutes 2] [--json]

A row is a mapping of figures by column. A figure is a text, a number, a `Spread` of samples or a `Ratio`; a row that could not
be measured holds `why`. Only the standard library is imported here, because peers in other environments import it too.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

from benchmarks.measuring import Ratio, Sample, Spread, compared, environment, print_table, spread_of

Row = dict[str, Any]  # Any: a figure of one of the kinds above
QUICK_MINUTES = 0.3  # of each table with --quick: whether it works


@dataclass(frozen=True, slots=True)
class Asked:
    """How much is to be measured.

    folder   for what has to be written; empty at first
    seconds  how long the rounds may take, building and loading included as far as they are known beforehand
    """

    folder: Path
    seconds: float
    is_quick: bool = False

    def share(self, part: float) -> float:
        """A part of the seconds."""
        return self.seconds * part

    def rounds(self, many: int) -> int:
        """How often sides take turns: so many times, or twice where it is only to work."""
        return 2 if self.is_quick else many


def row_of(what: str, way: str, samples: Sequence[Sample], base: Sequence[Sample]) -> Row:
    """One way of doing something: milliseconds of the clock and of the processor; where it is not the base itself, the ratio to that."""
    return {
        "what": what,
        "way": way,
        "wall_ms": spread_of(samples, "wall", times=1000),
        "cpu_ms": spread_of(samples, "cpu", times=1000),
        "ratio": compared(samples, base, "wall") if samples is not base else None,
    }


@dataclass(frozen=True, slots=True)
class Table:
    """A table: what its module is called, its heading, what it says, its columns by key, its rows, and its share of the whole.

    parts  words of the command line that give a part of the rows each, where a run that was stopped shall go on between them; such a
           module takes `--kept FOLDER` for what it exports, which its parts share
    """

    name: str
    title: str
    says: str
    columns: Mapping[str, str]
    rows: Callable[[Asked], list[Row]]
    minutes: float
    parts: Sequence[Sequence[str]] = ()


def told(line: str) -> None:
    """A line of progress, beside what is printed."""
    print(line, file=sys.stderr, flush=True)


class Timer:
    """How much of a budget is left."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds; negative when it is over."""
        return self.end - time.monotonic()

    def is_over(self) -> bool:
        """Whether nothing is left."""
        return self.left() <= 0


def cells(table_columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The rows as texts; a last column says why a row was not measured, where one was not."""
    lines = [[shown(row.get(key)) for key in table_columns] for row in rows]
    if any(row.get("why") for row in rows):
        lines = [[*line, str(row.get("why") or "")] for line, row in zip(lines, rows, strict=True)]
    return lines


def headings(table_columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of the same columns."""
    return [*table_columns.values(), *(["not measured, because"] if any(row.get("why") for row in rows) else [])]


def shown(value: Any) -> str:
    """A figure as a text of three digits; a `Spread` with its tenths, a `Ratio` with its interval. Reads their JSON as well."""
    if value is None:
        return ""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        if value.get("least") is not None:
            return f"{digits(value['median'])} [{digits(value['least'])}, {digits(value['most'])}]"
        return f"{digits(value['median'])} ({digits(value['low'])}-{digits(value['high'])})"
    return digits(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def digits(value: float) -> str:
    """Three digits that count; whole numbers above."""
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"


def as_json(rows: Sequence[Row]) -> str:
    """The rows for programs."""
    return json.dumps(rows, indent=1, default=asdict)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for one run, whose cache is empty: what other runs have kept changes no figure."""
    with tempfile.TemporaryDirectory(prefix="modelgraft-bench-") as folder:
        yield Path(folder)


def alone(table: Table, words: Sequence[str] | None = None) -> None:
    """Run one table from the command line, in the surroundings that it would have among the others."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{table.name}", description=f"{table.title}. {table.says}")
    parser.add_argument("--minutes", type=float, default=0.0, help=f"how long the rounds may take; by default {table.minutes}")
    parser.add_argument("--quick", action="store_true", help="whether it works, not how fast it is")
    parser.add_argument("--json", action="store_true", help="the rows for programs")
    options = parser.parse_args(words)
    with scratch() as folder:
        os.environ.update(environment(1, folder / "cache"))
        minutes = options.minutes or (QUICK_MINUTES if options.quick else table.minutes)
        rows = table.rows(Asked(folder, minutes * 60, options.quick))
    if options.json:
        print(as_json(rows))
        return
    print(f"{table.title}\n{table.says}\n")
    print_table(headings(table.columns, rows), cells(table.columns, rows))


def printed(table: Table, measure: Callable[[Asked], list[Row]], options: argparse.Namespace) -> None:
    """Measure a part of a table and print its rows. options: minutes, quick, json, and `kept`, a cache of exports that stays."""
    with scratch() as folder:
        if options.kept:
            options.kept.mkdir(parents=True, exist_ok=True)
            (folder / "kept").symlink_to(options.kept.resolve())
        os.environ.update(environment(1, folder / "cache"))
        found = measure(Asked(folder, options.minutes * 60, options.quick))
    if options.json:
        print(as_json(found))
    else:
        print_table(headings(table.columns, found), cells(table.columns, found))


__all__ = [
    "Asked",
    "Ratio",
    "Row",
    "Spread",
    "Table",
    "Timer",
    "alone",
    "as_json",
    "cells",
    "headings",
    "printed",
    "scratch",
    "shown",
    "told",
]
