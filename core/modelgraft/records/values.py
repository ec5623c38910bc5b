"""Values at the edge of a graph: what a user gives becomes a batch of records, what a run gives becomes what a user gets.

Inside a run every modality port carries a list of records and every tensor has `batch` as its first axis. Here, and only
here, single values are told from batches: a Python list is a batch, except on a `list[...]` port, where a list is one
record and a list of lists a batch, and where a record type says so (`RecordType.is_batch`). One record is a batch of one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from modelgraft.kernel.words.errors import InputError
from modelgraft.kernel.words.ports import ListOf, Modality, Port, PortType, Tensor
from modelgraft.records.opening import FindFile, plain_path
from modelgraft.records.record_type import Reading, Types
from modelgraft.records.shipped import SHIPPED
from modelgraft.records.telling import describe
from modelgraft.records.tensors import read_tensor, tensor_mismatch

__all__ = ["Given", "ReadInput", "describe", "input_reader", "present", "read_input", "tensor_mismatch"]


@dataclass(slots=True)  # not frozen: made in every run, and freezing triples the cost
class Given:
    """An input as a batch.

    value   a list of records, or a tensor with `batch` first; what can be written to is a copy of what the user holds
    count   how many records it has
    single  the user gave one record, not a batch: it is repeated to match the other inputs
    said    what the user should know of values that are used, but not quite as they are
    """

    value: Any
    count: int
    single: bool
    said: tuple[str, ...] = ()


ReadInput = Callable[[Any], Given]  # makes a batch of what the user gave for one input


def read_input(name: str, port: Port, value: Any, *, types: Types = SHIPPED, find: FindFile = plain_path) -> Given:
    """Turn what the user gave for an input into a batch.

    types  the record types that there are;  find  gives the place of a file that is named

    Raises InputError with the input, what was found and what was wanted.
    """
    return input_reader(name, port, types=types, find=find)(value)


def input_reader(name: str, port: Port, *, types: Types = SHIPPED, find: FindFile = plain_path) -> ReadInput:
    """What reads an input in every run: all that does not depend on the value is looked up here, once."""
    label = f"input '{name}'"
    readers = [(isinstance(kind, Tensor), _kind_reader(label, kind, types, find)) for kind in port.types]
    (_, usual), *others = readers
    if not others:
        return usual

    def read(value: Any) -> Given:
        """Read it as the alternative that the value is meant for."""
        is_array = hasattr(value, "shape") and hasattr(value, "dtype")
        return next((reader for is_tensor, reader in readers if is_tensor == is_array), usual)(value)

    return read


def _kind_reader(label: str, kind: PortType, types: Types, find: FindFile) -> ReadInput:
    """What reads the values of an input as one type."""
    if isinstance(kind, Tensor):
        return lambda value: _read_tensor(label, kind, value)
    read, plain = _reader(kind, types), plain_of(kind, types)

    def read_records(value: Any) -> Given:
        if type(value) in plain:
            return Given([value], 1, True)
        said: list[str] = []
        reading = Reading(label, said.append, find, types)
        if isinstance(value, list) and _is_batch(kind, value, types):
            if not value:
                raise InputError(f"{label}: the batch is empty; wanted: at least one {kind}")
            records = [read(record, reading.within(f"{label}[{index}]")) for index, record in enumerate(value)]
            return Given(records, len(value), False, tuple(said))
        return Given([read(value, reading)], 1, True, tuple(said))

    return read_records


def plain_of(kind: PortType, types: Types) -> frozenset[type]:
    """The types of Python whose values are records of a type as they are, and need neither reading nor copying."""
    return types[kind.name].plain if isinstance(kind, Modality) else frozenset()


def _read_tensor(label: str, kind: Tensor, value: Any) -> Given:
    tensor = read_tensor(label, kind, value)
    count = int(tensor.shape[0]) if tensor.ndim else 1
    return Given(tensor, count, count == 1)


def present(port: Port, value: Any, *, single: bool) -> Any:
    """What the user gets: tensors whole, with their batch axis; of one record the record itself, of a batch the list."""
    return value[0] if single and isinstance(value, list) and len(value) == 1 and not isinstance(port.type, Tensor) else value


def _is_batch(kind: PortType, value: list[Any], types: Types) -> bool:
    """Tell a batch from a record that is itself a list."""
    if isinstance(kind, Modality):
        return types[kind.name].is_batch(value)
    return bool(value) and all(isinstance(record, list | tuple) for record in value)


MakeRecord = Callable[[Any, Reading], Any]  # (what the user gave, how it is read) -> a record


def _reader(kind: PortType, types: Types) -> MakeRecord:
    """The function that turns one user value into a record of this kind."""
    if isinstance(kind, ListOf):
        item = _reader(kind.item, types)
        return lambda value, reading: _read_list(value, reading, kind, item)
    assert isinstance(kind, Modality)
    return types[kind.name].read


def _read_list(value: Any, reading: Reading, kind: ListOf, item: MakeRecord) -> list[Any]:
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise reading.refused(value, f"{kind}: a list, such as [a, b]")
    return [item(entry, reading.within(f"{reading.label}[{index}]")) for index, entry in enumerate(value)]
