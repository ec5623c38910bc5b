"""Data through a graph: a row of results for every record, in order; a record that fails is a row with its reason."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from modelgraft.cli.pacing import Pace, counting
from modelgraft.cli.written import absent_in
from modelgraft.data.datasets import DataRow, Dataset, Inputs, of_stream, open_dataset
from modelgraft.data.naming import Note
from modelgraft.data.shards import Shard
from modelgraft.engine.ahead import usual_ahead
from modelgraft.engine.outputs import as_they_lie
from modelgraft.kernel.words.errors import InputError, choices, nearest
from modelgraft.records.json_text import json_text
from modelgraft.records.readers import for_command
from modelgraft.records.showing import plain

if TYPE_CHECKING:
    from modelgraft.cli.session import CliSession
    from modelgraft.engine.pipeline import Pipeline
    from modelgraft.engine.result import Result
    from modelgraft.kernel.words.graph import GraphInput
    from modelgraft.records.record_type import Types

MOST_TOLD = 20  # failures that are told on stderr; all of them stand in the rows
OURS = ("error", "line", "absent")  # the columns of a row that failed, and of one that lacks an output


def data_named(name: str, inputs: Inputs, *, note: Note, types: Types) -> Dataset:
    """The data that a word names, as `open_dataset` says; `-` is JSON lines from stdin."""
    return of_stream(_stdin, "stdin", inputs) if name == "-" else open_dataset(name, inputs, note=note, types=types)


def _stdin() -> IO[bytes]:
    if sys.stdin is None:
        raise InputError("the data '-' cannot be read: stdin is closed")
    return sys.stdin.buffer


def map_rows(
    pipeline: Pipeline, dataset: Dataset, shard: Shard, *, outputs: Sequence[str] | None, batch_size: int, session: CliSession
) -> None:
    """Run every record that is not done yet, write a row for each, and show how far it is.

    What a stopped map has done is kept, and said.
    """
    pace = Pace(dataset.count() if session.progress else None, shard.done, shard.failed)
    try:
        with counting(session.screen, pace, is_on=session.progress) as (count, note):
            for row, result in _results(pipeline, dataset, shard, outputs=outputs, batch_size=batch_size, note=note):
                session.interrupts.raise_if_heard()  # a library may have swallowed it
                shard.write(json_text(_line(row, result, outputs or pipeline.plan.wanted)), is_failed=result.error is not None)
                count(shard.done, shard.failed)
    except BaseException:
        if shard.done:
            session.screen.note(f"{shard.done} records are done and kept in {shard.part}; --resume goes on after them")
        raise


def _results(
    pipeline: Pipeline, dataset: Dataset, shard: Shard, *, outputs: Sequence[str] | None, batch_size: int, note: Note
) -> Iterator[tuple[DataRow, Result]]:
    """The rows that are not done yet, each with its result. The first failures are told."""
    ahead = deque[DataRow]()
    extras = _Extras(pipeline.plan.graph.inputs, note)
    done, failed = shard.done, 0

    def records() -> Iterator[Mapping[str, Any] | InputError]:
        for number, row in enumerate(dataset.read()):
            if number >= done:
                extras.look_at(row)
                ahead.append(row)
                yield InputError(row.error) if row.error else row.inputs

    side_by_side = usual_ahead(pipeline.plan) if dataset.digest is not None else 0  # a pipe may wait for what its records gave
    for result in pipeline.map(records(), batch_size=batch_size, outputs=outputs, ahead=side_by_side):
        row = ahead.popleft()
        if result.error is not None:
            failed += 1
            if failed <= MOST_TOLD:
                note(f"{row.place}: {result.error.unworded}")
            elif failed == MOST_TOLD + 1:
                note(f"more records failed: their reasons stand in {shard.out}")
        yield row, result


def _line(row: DataRow, result: Result, outputs: Sequence[str] | Mapping[str, Any]) -> dict[str, Any]:
    """A row of results: the columns that were no inputs, then the outputs, or the reason why there are none."""
    kept = {_free_name(name, row.extras, outputs): value for name, value in row.extras.items()}
    if result.error is None:
        outputs = as_they_lie(result.outputs)
        absent = absent_in(outputs)
        return {**plain(kept), **plain(outputs), **({"absent": absent} if absent else {})}
    place = {} if row.line is None else {"line": row.line}
    return {**plain(kept), "error": f"{row.place}: {for_command(result.error.unworded)}", **place}


def _free_name(name: str, extras: Mapping[str, Any], outputs: Sequence[str] | Mapping[str, Any]) -> str:
    """What a column is called in the results: its name, behind `data.` as often as something else has that already."""
    free = name
    while free in OURS or free in outputs or (free != name and free in extras):
        free = f"data.{free}"
    return free


class _Extras:
    """Says once which columns are handed through: one of them may be a misspelt input."""

    def __init__(self, inputs: Mapping[str, GraphInput], note: Callable[[str], None]) -> None:
        self._inputs, self._note, self._is_told = inputs, note, False

    def look_at(self, row: DataRow) -> None:
        """Look at the columns of a row."""
        names = [name for name in row.extras if row.line is not None]
        if names and not self._is_told:
            self._is_told = True
            near = next((f" {hint}" for name in names if (hint := nearest(name, set(self._inputs) - set(row.inputs)))), "")
            self._note(f"no inputs of the graph, handed through to the results: {choices(names)}.{near}")
