"""Inputs that are tensors of one shape for every record: read once, their bytes in a file, and a batch of them taken in one go."""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from modelgraft.commands import GraphInput, read_input
from modelgraft.plugin import InputError, Tensor
from modelgraft_plugins.training.mapped import Mapped

ReadValue = Callable[[Any], Any]  # what the data gives for an input -> what the pipeline makes of it


def packed_inputs(inputs: Mapping[str, GraphInput]) -> dict[str, ReadValue]:
    """The inputs whose values are tensors of a record each, by name, with what reads one as the pipeline does."""

    def reads(item: GraphInput) -> ReadValue:
        return lambda value: read_input(item.name, item.port, value)

    return {name: reads(item) for name, item in inputs.items() if _is_of_records(item)}


def _is_of_records(item: GraphInput) -> bool:
    kind = item.port.types[0] if len(item.port.types) == 1 else None
    return isinstance(kind, Tensor) and bool(kind.axes) and kind.axes[0] is not None and kind.axes[0].symbol == "batch"


class Column:
    """The values of one input. Those that are no tensor of a record, or of another shape or dtype than the first, do not belong to it.

    Memory holds eight bytes of a record; the numbers lie in a file of this process, which is mapped.
    """

    def __init__(self, read: ReadValue) -> None:
        self._read, self._file = read, tempfile.TemporaryFile()  # noqa: SIM115 it is closed with this
        self._places, self._count = array("q"), 0  # of each record the number of its row; -1: it has none
        self.refused = ""  # why the value that came last cannot be read
        self._like: tuple[tuple[int, ...], Any] | None = None  # shape and dtype of a row
        self._mapped: Mapped | None = None

    def __del__(self) -> None:
        self._file.close()

    def add(self, value: Any) -> bool:
        """Put the value of the next record behind the others; says whether it belongs here. None: the record has none."""
        self.refused = ""
        tensor = self._tensor(value) if isinstance(value, list) else None
        if tensor is None:
            self._places.append(-1)
            return False
        self._like = self._like or (tuple(tensor.shape[1:]), tensor.dtype)
        self._file.write(tensor.numpy().tobytes())
        self._places.append(self._count)
        self._count += 1
        self._mapped = None
        return True

    def _tensor(self, value: Any) -> torch.Tensor | None:
        try:
            found = self._read(value)
        except InputError as error:
            self.refused = error.unworded
            return None
        tensor = found.value
        is_like = self._like in (None, (tuple(tensor.shape[1:]), tensor.dtype))
        is_row = found.count == 1 and tensor.numel() and tensor.dtype != torch.bfloat16  # which numpy does not have
        return tensor if is_row and is_like else None

    def has(self, number: int) -> bool:
        """Whether the value of a record lies here."""
        return self._places[number] >= 0

    def take(self, numbers: Sequence[int]) -> torch.Tensor | None:
        """The values of some records as a batch in memory of its own; None where one of them does not lie here."""
        places = [self._places[number] for number in numbers]
        if not places or min(places) < 0:
            return None
        mapped = self._rows()
        found = mapped.values[places]
        mapped.note(len(places), found[0].nbytes)
        return torch.from_numpy(found)

    def _rows(self) -> Mapped:
        if self._mapped is None:
            assert self._like is not None, "a row was written"
            shape, dtype = self._like
            self._file.flush()
            kind = torch.empty(0, dtype=dtype).numpy().dtype
            self._mapped = Mapped(self._file, kind, (self._count, *shape))
        return self._mapped
