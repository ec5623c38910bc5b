"""The records of a stage: what is trained on, what is held out, and in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from modelgraft.commands import Resolved, data_beside, open_dataset, types_of
from modelgraft.plugin import InputError, SolvedGraph, option
from modelgraft_plugins.training.rows import Order, Rows, held_out, read_rows, refuse_bad

if TYPE_CHECKING:
    from modelgraft.commands import Learning, ReadBatch
    from modelgraft_plugins.training.asked import Asked


@dataclass(frozen=True, slots=True)
class Data:
    """The records of a stage, and those that it is evaluated on."""

    rows: Rows
    valid: Rows | None
    order: Order
    held: tuple[int, ...]
    name: str

    @property
    def evaluated(self) -> tuple[Rows, Sequence[int]]:
        """The records of an evaluation, and their numbers; none where nothing is evaluated."""
        return (self.valid, range(len(self.valid))) if self.valid is not None else (self.rows, self.held)


@dataclass(frozen=True, slots=True)
class Group:
    """The batches of an update, by the numbers of their records, and the epoch in which it begins."""

    epoch: int
    numbers: list[list[int]]


@dataclass(frozen=True, slots=True)
class Taken:
    """Records that were read: their numbers, the batch of those that fit, what is kept of these, and for which calls."""

    numbers: Sequence[int]
    batch: ReadBatch
    ready: Mapping[Any, Any]
    learning: Learning
    has_kept: bool


def read_data(resolved: Resolved, solved: SolvedGraph, asked: Asked) -> Data:
    """Read the data of a stage. Raises InputError for data that cannot be read, rows that do not fit, and too few of them."""
    stage, valid = resolved.stage, resolved.stage["valid"]
    value = stage.values.get("data")
    if value is None:
        raise InputError(f"stage {stage.name} names no data: write training.data: FILE into the graph, or give {option('data', 'FILE')}")
    rows, name = _rows(value, resolved, solved, asked)
    share = float(valid) if isinstance(valid, int | float) else 0.0
    numbers, held = held_out(len(rows), share, seed=stage["seed"]) if share else (range(len(rows)), [])
    if not len(numbers):
        holds = f"{name} holds {len(rows):,} record{'s' * (len(rows) != 1)}"
        raise InputError(f"{holds}, and a share of {share:g} is held out: none is left to train on")
    order = Order(numbers, rows.lengths, stage["batch"], stage["seed"], stage["shuffle"], stage["bucket"])
    other = _rows(stage.values["valid"], resolved, solved, asked)[0] if isinstance(valid, str) else None
    return Data(rows, other, order, tuple(held), name)


def _rows(value: Any, resolved: Resolved, solved: SolvedGraph, asked: Asked) -> tuple[Rows, str]:
    name = data_beside(value, solved.graph)
    inputs = {column: replace(solved.inputs[key], name=column) for key, column in resolved.columns.items()}
    key = (name, *((column, str(port), str(solved.inputs[port].port)) for port, column in sorted(resolved.columns.items())))
    if asked.shared is not None and key in asked.shared.rows:
        return asked.shared.rows[key], name
    dataset = open_dataset(name, inputs, note=asked.note, types=types_of(solved.graph.registry))
    told = {one.references for one in resolved.metrics.values() if isinstance(one.references, str)}
    rows = read_rows(dataset, resolved.columns, solved.inputs, told=sorted(told))
    refuse_bad(rows.bad, data=name, skips=asked.skips, note=asked.note)
    if not len(rows):
        raise InputError(f"{name} holds no record")
    if asked.shared is not None:
        asked.shared.rows[key] = rows
    return rows, name
