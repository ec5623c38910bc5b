"""The records that every cell runs: from a file, from words of the command line, or what the defaults of the inputs are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelgraft.commands import GivenInputs, data_named, types_of
from modelgraft.plugin import InputError, choices
from modelgraft_plugins.benching.results import Data, RecordFailure

if TYPE_CHECKING:
    from modelgraft.commands import CliSession, GraphInput
    from modelgraft_plugins.benching.sweeps import Sweep

ONE = "one record of defaults"


@dataclass(frozen=True, slots=True)
class Records:
    """What cells run.

    inputs   by record: the values of inputs, of all graphs together; a cell takes those that its graph has
    columns  by record: everything that stands there, the inputs among it, for metrics
    about    what results say of them; those that cannot be read are named there, and are not among the others
    """

    inputs: Sequence[Mapping[str, Any]]  # Any: as `Pipeline.run` takes them
    columns: Sequence[Mapping[str, Any]]  # Any: as the data hold them
    about: Data


def read_records(sweep: Sweep, inputs: Mapping[str, GraphInput], session: CliSession) -> Records:
    """Read the data of a sweep. Raises InputError where they cannot be read, hold no record, or lack an input that has no default."""
    found = _from_file(sweep.records, inputs, session) if sweep.records is not None else _one(sweep.inputs, inputs, session)
    needed = [name for name, item in inputs.items() if not item.has_default and not item.port.optional]
    lacking = [name for name in needed if all(name not in record for record in found.inputs)]
    if lacking:
        where = f"the data '{sweep.records}' have" if sweep.records is not None else "--input gives"
        has = choices(dict.fromkeys(name for record in found.columns for name in record))
        who = "the graph takes" if len(sweep.graphs) == 1 else "one of the graphs takes"
        way_out = "add a column for each" if sweep.records is not None else "give --records FILE, or --input for each"
        raise InputError(f"{who} {', '.join(lacking)}, but {where} {has}; {way_out}")
    return found


def _from_file(name: str, inputs: Mapping[str, GraphInput], session: CliSession) -> Records:
    dataset = data_named(name, inputs, note=session.screen.note, types=types_of(session.registry))
    if dataset.digest is None:
        raise InputError(f"the data '{name}' cannot be read again, and every cell reads them: name a file or a folder")
    rows = list(dataset.read())
    good = [row for row in rows if not row.error]
    failed = [RecordFailure(record=number, place=row.place, text=row.error) for number, row in enumerate(rows) if row.error]
    if not good:
        why = f": {failed[0].place}: {failed[0].text}" if failed else ""
        raise InputError(f"the data '{name}' hold no record that can be read{why}")
    about = Data(name=name, digest=dataset.digest, records=len(good), failed=tuple(failed))
    return Records([row.inputs for row in good], [{**row.extras, **row.inputs} for row in good], about)


def _one(words: Sequence[tuple[str, str]], inputs: Mapping[str, GraphInput], session: CliSession) -> Records:
    reading = GivenInputs(inputs, note=session.screen.note, types=types_of(session.registry))
    record = reading.read(words)
    name = " ".join(f"{key}={value}" for key, value in words) or ONE
    digest = hashlib.sha256(name.encode())
    for file in sorted(reading.files):
        digest.update(file.read_bytes())
    return Records([record], [record], Data(name=name, digest=digest.hexdigest(), records=1))
