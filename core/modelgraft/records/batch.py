"""Batches: records of one port together. The only place where they are cut and put together.

On a wire a batch that is whole travels as what it is, a list of records or a tensor whose first axis is `batch`; a Batch travels
where the routes of a graph have left some of the records out, or where a record asks a branch several times, or not at all: there
its rows are asks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from modelgraft.kernel.words.ports import PortType, Tensor
from modelgraft.records.absence import ABSENT
from modelgraft.records.arrays import as_tensor
from modelgraft.records.owning import is_array
from modelgraft.records.record import Record

RowNumber = int | tuple[int, int]  # the number of a record in the batch of the run; of an ask: that of its record, and its own there


def record_of(row: RowNumber) -> int:
    """The number of the record that a row belongs to."""
    return row if isinstance(row, int) else row[0]


class Unlike(ValueError):
    """Batches that cannot be put together: tensors of unlike records, or a list and a tensor."""


@dataclass(frozen=True, slots=True)
class Batch(Record):
    """Records of one port.

    value    a list of them, or a tensor or an array with one at each place of its first axis; None when there are none
    present  their numbers in the batch of the run, rising, or of asks (record, ask); None: all of the run are there
    asks     all that was asked for where the rows are asks, also what nothing came of; empty where they are records
    """

    value: Any
    present: tuple[RowNumber, ...] | None = None
    asks: tuple[RowNumber, ...] = ()

    @classmethod
    def of(cls, value: Any) -> Batch:
        """What travels on a wire, as a batch: itself, all records of a list or a tensor, or none for None."""
        if isinstance(value, Batch):
            return value
        return NOTHING if value is None else cls(value)

    def take(self, rows: Sequence[RowNumber]) -> Any:
        """Those of these numbers, in that order, as a whole batch of their own: for an ask, of records that of the record that asks."""
        wanted = rows if self.asks else [record_of(row) for row in rows]
        if self.present is None:
            return _picked(self.value, wanted)
        if self.present == rows:
            return self.value
        position = {row: index for index, row in enumerate(self.present)}
        return _picked(self.value, [position[row] for row in wanted])

    def listed(self, total: int) -> list[Any]:
        """An entry for each of `total` records: the record, or ABSENT; of asks the list of those that a record has."""
        if self.asks:
            return self.gathered(range(total))
        if self.present is None:
            return [self.value[record] for record in range(total)]
        there = dict(zip(self.present, self.value if self.present else (), strict=True))
        return [there.get(record, ABSENT) for record in range(total)]

    def gathered(self, records: Iterable[int]) -> list[list[Any]]:
        """For each of these records the list of what it has: its asks in their order, with ABSENT for one that gave nothing, or itself."""
        rows: Sequence[RowNumber] = range(len(self.value)) if self.present is None else self.present
        there = dict(zip(rows, self.value if self.value is not None else (), strict=True))
        found: dict[int, list[Any]] = defaultdict(list)
        for row in self.asks or rows:
            found[record_of(row)].append(there.get(row, ABSENT))
        return [found[record] for record in records]

    @classmethod
    def of_asks(cls, values: Sequence[Any], records: Sequence[int]) -> Batch:
        """Asks of records, from a list of what each of them asks: lists, or tensors whose first axis are the asks.

        Raises Unlike for tensors of unlike asks.
        """
        rows = tuple((record, ask) for record, asked in zip(records, values, strict=True) for ask in range(len(asked)))
        return cls(_stacked([asked for asked in values if len(asked)]), rows, rows) if rows else NOTHING

    def split(self, count: int) -> list[Any]:
        """Each of `count` records as a whole batch of one."""
        return [self.value[index : index + 1] for index in range(count)]

    def spread(self, count: int) -> Any:
        """The only record, `count` times; what does not hold exactly one stays as it is."""
        value = self.value
        if isinstance(value, list):
            return value * count if len(value) == 1 and count != 1 else value
        if not (getattr(value, "ndim", 0) and len(value) == 1 and count != 1):
            return value
        return value.repeat(count, 0) if is_array(value) else value.expand(count, *value.shape[1:])

    @classmethod
    def join(cls, batches: Sequence[Batch]) -> Batch:
        """Several as one: whole ones behind each other, those of some records in the order of their numbers.

        Raises Unlike for what is no single batch.
        """
        if len(batches) == 1:
            return batches[0]
        joined = _stacked([batch.value for batch in batches])
        numbers = [record for batch in batches for record in batch.present or ()]
        if not numbers:
            return cls(joined)
        asks = tuple(sorted({ask for batch in batches for ask in batch.asks}))  # of what asks, each batch has its own
        order = sorted(range(len(numbers)), key=numbers.__getitem__)
        if order != list(range(len(numbers))):
            joined = _picked(joined, order)
        return cls(joined, tuple(sorted(numbers)), asks)

    @classmethod
    def gather(cls, values: Sequence[Any]) -> list[Any] | None:
        """What several wires give one port: of records a list for each record, of tensors a list of them; None for nothing at all."""
        there = [value for value in values if value is not None]
        if not there:
            return None
        if all(isinstance(value, list) for value in there):
            return [list(records) for records in zip(*there, strict=True)]
        return there

    def on_wire(self, total: int) -> Any:
        """As it travels in a run of `total` records: as it is where all are there."""
        return self.value if self.present is None or (len(self.present) == total and not self.asks) else self


NOTHING: Final = Batch(None, ())


def is_whole(kind: PortType) -> bool:
    """Say whether a value of this type is not made of records: a tensor whose first axis is not the batch."""
    if not isinstance(kind, Tensor) or not kind.axes or kind.axes[0] is None:
        return isinstance(kind, Tensor) and not kind.axes
    return kind.axes[0].symbol != "batch"


def _picked(value: Any, positions: Sequence[Any]) -> Any:
    """Some records of a list, or of a tensor along its first axis."""
    return [value[position] for position in positions] if isinstance(value, list) else value[list(positions)]


def _stacked(values: Sequence[Any]) -> Any:
    """Lists, tensors or arrays behind each other; of tensors and arrays a tensor."""
    if all(isinstance(value, list) for value in values):
        return [record for value in values for record in value]
    if any(isinstance(value, list) for value in values):
        raise Unlike("records beside tensors")
    if len({tuple(value.shape[1:]) for value in values}) > 1:
        raise Unlike(" and ".join(str(list(value.shape)) for value in values))
    if all(map(is_array, values)):
        import numpy

        return numpy.concatenate(values)
    import torch

    return torch.cat([*map(as_tensor, values)])
