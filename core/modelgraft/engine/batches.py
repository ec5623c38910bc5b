"""A graph over many records: put into batches, run, taken apart again; a failure stays with the record that caused it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from typing import Any

from modelgraft.engine.ahead import side_by_side
from modelgraft.engine.intake import Inlet, Intake, level, read, refuse_unknown, said_of
from modelgraft.engine.outputs import Lying, as_they_lie, to_be_read
from modelgraft.engine.result import Result
from modelgraft.kernel.words.errors import Cancelled, GraphError, InputError, ModelgraftError, NodeError
from modelgraft.kernel.words.graph import GraphInput
from modelgraft.kernel.words.ports import Port, Tensor
from modelgraft.records import values
from modelgraft.records.absence import ABSENT
from modelgraft.records.batch import Batch, Unlike, is_whole
from modelgraft.records.owning import is_array
from modelgraft.records.values import Given
from modelgraft.sources.archives import only_cached

RunBatch = Callable[[Intake], Result]
Taken = Sequence[dict[str, Given | None] | ModelgraftError]  # the records of a batch as they were read, each with what is wrong with it
MappedRecord = Mapping[str, Any] | ModelgraftError  # the error of a record that could not even be read comes back as its result


def map_records(
    records: Iterable[MappedRecord],
    run: RunBatch,
    *,
    known: Mapping[str, GraphInput],
    needed: Sequence[Inlet],
    ports: Mapping[str, Port],
    batch_size: int,
    ahead: int = 0,
    stop: Callable[[], None] = lambda: None,
) -> Iterator[Result]:
    """Give one result per record, in order. Reads no further ahead than one batch, and those that are under way.

    known   the inputs of the graph;  needed  those that the run reads;  ports  of the wanted outputs
    ahead   how many batches are under way while the next one is read; 0: one is read, then run, then the next one is read
    stop    ends the runs that are under way, when somebody leaves before the end
    """
    size = 1 if any(is_whole(port.type) for port in ports.values()) else batch_size  # what has no batch axis cannot be taken apart
    source = iter(records)

    def batches() -> Iterator[Taken]:
        while batch := [_read(record, known, needed) for record in islice(source, size)]:  # each at once: its maker may fill it again
            yield batch

    if ahead:
        found = side_by_side(
            batches(), lambda batch: [*_run_batch(batch, run, known, ports)], ahead=ahead, stop=stop, name="modelgraft-map"
        )
        with closing(found):
            for results in found:
                yield from results
    else:
        for batch in batches():
            yield from _run_batch(batch, run, known, ports)


def _run_batch(taken: Taken, run: RunBatch, known: Mapping[str, GraphInput], ports: Mapping[str, Port]) -> Iterator[Result]:
    good = [one for one in taken if not isinstance(one, ModelgraftError)]
    results = iter(_run_together(good, run, known, ports))
    for one in taken:
        yield Result({}, error=one) if isinstance(one, ModelgraftError) else _with_remarks(next(results), said_of(one))


def _with_remarks(result: Result, said: tuple[str, ...]) -> Result:
    """The result of a record, which also says what was odd about its own inputs."""
    return replace(result, warnings=(*said, *result.warnings)) if said else result


def _read(record: MappedRecord, known: Mapping[str, GraphInput], needed: Sequence[Inlet]) -> dict[str, Given | None] | ModelgraftError:
    if isinstance(record, ModelgraftError):
        return record
    if not isinstance(record, Mapping):
        return InputError(f"found {values.describe(record)}, wanted a record: a mapping of inputs to values")
    try:
        refuse_unknown(record, known)
        with only_cached("a record starts no download"):
            found = {inlet.item.name: _read_input(inlet, record) for inlet in needed}
    except ModelgraftError as error:
        return error
    except Exception as error:  # noqa: BLE001 a file may make its decoder fail in any way, MemoryError too: the other records live
        return _unread(record, needed, error)
    many = [name for name, one in found.items() if one is not None and not one.single and not is_whole(known[name].port.type)]
    if many:
        return InputError(f"input '{many[0]}' holds a batch; in a record each input is a single value")
    return found


def _read_input(inlet: Inlet, record: Mapping[str, Any]) -> Given | None:
    try:
        return read(inlet, record)
    except GraphError as error:  # of a source, which does not know for what it was named
        raise InputError(f"input '{inlet.item.name}': {error.unworded}") from error


def _unread(record: Mapping[str, Any], needed: Sequence[Inlet], error: Exception) -> InputError:
    told = ", ".join(f"'{name}' ({values.describe(record[name])})" for inlet in needed if (name := inlet.item.name) in record)
    reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}".rstrip(": ")
    failed = InputError(f"the record cannot be read, with the inputs {told}: {reason}")
    failed.__cause__ = error
    return failed


def _run_together(
    records: Sequence[Mapping[str, Given | None]], run: RunBatch, known: Mapping[str, GraphInput], ports: Mapping[str, Port]
) -> list[Result]:
    """Run records as one batch; when that fails, one by one, so that the failure stays with its record."""
    if len(records) > 1:
        try:
            joined = _join(records, known)
            if joined is not None:
                return _split(run(Intake(joined, len(records), single=False)), len(records), ports)
        except Cancelled:
            raise
        except (NodeError, InputError, MemoryError):
            pass  # found again below, by the record that causes it
    return [_run_alone(record, run, known) for record in records]


def _run_alone(record: Mapping[str, Given | None], run: RunBatch, known: Mapping[str, GraphInput]) -> Result:
    try:
        return run(replace(level(record, known), single=True, said=()))
    except Cancelled:
        raise
    except (NodeError, InputError) as error:
        return Result({}, error=error)
    except MemoryError:
        return Result({}, error=InputError("the memory does not suffice for this record"))


def _join(records: Sequence[Mapping[str, Given | None]], known: Mapping[str, GraphInput]) -> dict[str, Any] | None:
    """One batch of several records; None when they do not fit together: tensors that are unlike or have no batch axis, inputs left out."""
    joined: dict[str, Any] = {}
    for name in records[0]:
        there = [one.value for record in records if (one := record[name]) is not None]
        if not there:
            joined[name] = None
            continue
        if len(there) < len(records) or not _may_join(there, known[name].port):
            return None
        try:
            joined[name] = Batch.join([Batch(value) for value in there]).value
        except Unlike:
            return None
    return joined


def _may_join(there: Sequence[Any], port: Port) -> bool:
    """Records of any kind; tensors that have a batch axis, and one dtype."""
    if any(isinstance(value, list) for value in there):
        return True
    return not is_whole(port.tensor or port.type) and len({value.dtype for value in there}) == 1


def _split(result: Result, count: int, ports: Mapping[str, Port]) -> list[Result]:
    outputs = as_they_lie(result.outputs)
    columns = {name: _records(outputs[name], count, port) for name, port in ports.items()}
    return [replace(result, outputs=to_be_read({name: column[index] for name, column in columns.items()})) for index in range(count)]


def _records(value: Any, count: int, port: Port) -> list[Any]:
    """The output of each record, as a run of it alone would give it: a tensor keeps its batch axis."""
    parts = Batch(value).split(count)
    if not isinstance(value, list):
        return [*map(Lying, parts)] if is_array(value) else parts
    is_tensor = isinstance(port.type, Tensor)
    return [record[None] if is_tensor and record is not ABSENT else record for (record,) in parts]
