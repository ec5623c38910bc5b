"""The records of a data set in an order that a seed decides: on disk, so that memory does not grow with what they hold."""

from __future__ import annotations

import hashlib
import pickle
import tempfile
import threading
from array import array
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from modelgraft.commands import Dataset, GraphInput
from modelgraft.plugin import InputError, Port, choices, home_read, option
from modelgraft_plugins.training.columns import Column, packed_inputs

if TYPE_CHECKING:
    import torch

MOST_TOLD = 20  # rows that do not fit, in a message
LONGEST_NAME = 1024  # of a file; what is longer is a text
CHUNK = 64  # batches whose records are sorted by their length together: enough that each is nearly even, few enough that order stays random


@dataclass(slots=True)
class Rows:
    """The records of a data set.

    files  tells the files that rows name apart from others of the same names, by size and time
    bad  where a row stands that is no record, and why
    columns  by input: those of one shape, which are read once;  ports  of the inputs
    told  columns of the data that metrics compare with
    """

    digest: str
    files: str = ""
    bad: dict[str, str] = field(default_factory=dict)
    lengths: array[int] = field(default_factory=lambda: array("l"))
    columns: Mapping[str, Column] = field(default_factory=dict)
    ports: Mapping[str, Port] = field(default_factory=dict)
    told: Collection[str] = ()
    _lock: threading.Lock = field(default_factory=threading.Lock)  # one reads ahead while another evaluates
    _file: Any = field(default_factory=tempfile.TemporaryFile)  # Any: a file of bytes; ours alone, gone with the process
    _starts: array[int] = field(default_factory=lambda: array("q"))
    _has_others: bytearray = field(default_factory=bytearray)  # whether a record holds anything beside its columns

    def __len__(self) -> int:
        return len(self._starts)

    def add(self, place: str, inputs: Mapping[str, Any], facts: Mapping[str, Any] | None = None) -> set[str]:
        """Put a record behind the others; gives the inputs that went to their columns."""
        in_columns = {name for name, column in self.columns.items() if column.add(inputs.get(name))}
        others = {name: packed(value, self.ports[name]) for name, value in inputs.items() if name not in in_columns}
        self._file.seek(0, 2)
        self._starts.append(self._file.tell())
        pickle.dump((place, others, dict(facts or {})), self._file, protocol=pickle.HIGHEST_PROTOCOL)
        self._has_others.append(bool(others))
        self.lengths.append(sum(len(value) for value in inputs.values() if isinstance(value, str)))
        return in_columns

    def __del__(self) -> None:
        self._file.close()

    def __getitem__(self, number: int) -> tuple[str, dict[str, Any]]:
        """Where a record stands in the data, and its inputs."""
        place, inputs, _ = self._others(number)
        values = {name: column.take([number]) for name, column in self.columns.items()}
        return place, {**inputs, **{name: value for name, value in values.items() if value is not None}}

    def facts(self, number: int) -> dict[str, Any]:
        """What the columns of `told` hold of a record, as the data has it."""
        return self._others(number)[2]

    def place(self, number: int) -> str:
        """Where a record stands in the data."""
        return self._others(number)[0]

    def take(self, numbers: Sequence[int], names: Collection[str]) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
        """Some records: their inputs, and by input the values of all of them, where these lie in a column. names: what is needed."""
        columns = {name: column for name, column in self.columns.items() if name in names}
        whole = {name: values for name, column in columns.items() if (values := column.take(numbers)) is not None}
        found = [self._others(number)[1] if self._has_others[number] else {} for number in numbers]
        for name in columns.keys() - whole.keys():
            for number, inputs in zip(numbers, found, strict=True):
                if (value := columns[name].take([number])) is not None:
                    inputs[name] = value
        return found, whole

    def _others(self, number: int) -> tuple[str, dict[str, Any], dict[str, Any]]:
        with self._lock:
            self._file.seek(self._starts[number])
            place, inputs, facts = pickle.load(self._file)  # noqa: S301 what `add` has written in this process
        return place, inputs, facts


def read_rows(dataset: Dataset, columns: Mapping[str, str], inputs: Mapping[str, GraphInput], *, told: Collection[str] = ()) -> Rows:
    """Read a data set once.

    columns  the column of each input of the graph;  inputs  of the graph;  told  columns that metrics compare with

    A row that is no record, lacks a column that an input needs, or holds numbers that do not fit is noted among the bad ones.
    """
    read = {name: Column(reader) for name, reader in packed_inputs(inputs).items() if name in columns}
    rows, state = (
        Rows(dataset.digest or "", columns=read, ports={name: item.port for name, item in inputs.items()}, told=told),
        hashlib.sha256(),
    )
    for row in dataset.read():
        given = {name: row.inputs[column] for name, column in columns.items() if column in row.inputs}
        lacking = [name for name in columns if given.get(name) is None and not (inputs[name].has_default or inputs[name].port.optional)]
        if row.error:
            rows.bad[row.place] = row.error
        elif lacking:
            rows.bad[row.place] = f"no column gives {choices(f'{name} ({columns[name]})' for name in lacking)}"
        else:
            facts = {name: value for name in told if (value := row.inputs.get(name, row.extras.get(name))) is not None}
            in_columns = rows.add(row.place, {name: value for name, value in given.items() if value is not None}, facts)
            if refused := [column.refused for column in read.values() if column.refused]:
                rows.bad[row.place] = refused[0]  # it keeps its number, and is left out wherever it stands
            for name, value in given.items():
                state.update(b"-" if name in in_columns else _state_of(value))
    rows.files = state.hexdigest()
    return rows


def packed(value: Any, port: Port) -> Any:
    """Nested lists of numbers with points as the array that they are read as: a vector takes a fiftieth of the time in every epoch.

    What is anything else, or not exactly that in float32, stays as it is and is read as ever.
    """
    if not isinstance(value, list) or not all(str(kind).startswith(("float[", "float32[")) for kind in port.types):
        return value
    try:
        found = np.asarray(value)
    except ValueError:  # rows of unlike lengths
        return value
    if found.dtype != np.float64 or not found.size or not np.abs(found).max() <= np.finfo(np.float32).max:  # not: nan is no number
        return value
    return found.astype(np.float32)


def _state_of(value: Any) -> bytes:
    """What tells a file, or those of a list or a message, from what stands there later; of a text that names none, nothing."""
    if isinstance(value, Mapping):
        return b"".join(map(_state_of, value.values()))
    if isinstance(value, list | tuple):
        return b"".join(map(_state_of, value))
    if not isinstance(value, str) or len(value) > LONGEST_NAME:
        return b"-"
    try:
        found = home_read(value).stat()
    except (OSError, ValueError, RuntimeError):
        return b"-"
    return b"%d %d " % (found.st_size, found.st_mtime_ns)


def refuse_bad(bad: Mapping[str, str], *, data: str, skips: bool, note: Callable[[str], None]) -> None:
    """Tell of rows that do not fit. Raises InputError, unless they are to be skipped."""
    if not bad:
        return
    listed = [f"{place}: {why}" for place, why in list(bad.items())[:MOST_TOLD]]
    more = [f"and {len(bad) - MOST_TOLD:,} more"] if len(bad) > MOST_TOLD else []
    count = f"1 row of {data} does not fit" if len(bad) == 1 else f"{len(bad):,} rows of {data} do not fit"
    text = "\n    ".join([count, *listed, *more])
    if not skips:
        raise InputError(f"{text}\n    mend them, or leave them out by {option('skip_bad')}")
    note(text)


@dataclass(frozen=True, slots=True)
class Order:
    """Which records stand in which batch: the same for the same seed, on every machine.

    numbers  of the records that there are;  size  of a batch
    """

    numbers: Sequence[int]
    lengths: Sequence[int]
    size: int
    seed: int
    shuffles: bool = True
    buckets: bool = True

    @property
    def batches(self) -> int:
        """Batches in an epoch: what is left over when they are shuffled comes in another epoch."""
        count = len(self.numbers)
        return max(1, count // self.size) if self.shuffles else -(-count // self.size)

    def epoch(self, number: int, first: int = 0) -> Iterator[list[int]]:
        """The batches of an epoch, from its first one on."""
        order = np.asarray(self.numbers, dtype=np.int64)
        batches = np.arange(self.batches)
        if self.shuffles:
            draws = np.random.default_rng([self.seed & 0xFFFF_FFFF, number])
            order = draws.permutation(order)[: self.batches * self.size]
            if self.buckets and np.ptp(self.lengths):
                order = self._bucketed(order)
            batches = draws.permutation(-(-len(order) // self.size))
        for index in batches[first:]:
            yield order[index * self.size : (index + 1) * self.size].tolist()

    def _bucketed(self, order: np.ndarray[Any, np.dtype[np.int64]]) -> np.ndarray[Any, np.dtype[np.int64]]:
        lengths = np.asarray(self.lengths)[order]
        span = CHUNK * self.size
        parts = [np.arange(start, min(start + span, len(order))) for start in range(0, len(order), span)]
        return np.concatenate([order[part][np.argsort(lengths[part], kind="stable")] for part in parts])

    def from_batch(self, first: int) -> Iterator[tuple[int, list[int]]]:
        """The batches without end from a number on, each with its epoch."""
        number, skipped = divmod(first, self.batches)
        while True:
            for batch in self.epoch(number, skipped):
                yield number, batch
            number, skipped = number + 1, 0


def held_out(count: int, share: float, *, seed: int) -> tuple[Sequence[int], list[int]]:
    """The numbers of the records that are trained on, and those of a share that is not: drawn by the seed."""
    order = np.random.default_rng([seed & 0xFFFF_FFFF, 0x5EED]).permutation(count)
    kept = max(1, round(count * share)) if share else 0
    return array("q", np.sort(order[kept:]).tobytes()), sorted(order[:kept].tolist())
