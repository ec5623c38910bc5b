"""Readings of movement from files: tables with a column of times, JSON, and arrays of numpy."""

from __future__ import annotations

import csv
import io
import math
import re
import zipfile
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any

from modelgraft.kernel.words.errors import InputError, choices
from modelgraft.records.arrays import NPY, json_in, npy_in, text_in
from modelgraft.records.movements import WANTED_READINGS, Imu
from modelgraft.records.opening import FILE_BYTES, FileOrBytes, open_named, reason

if TYPE_CHECKING:
    from modelgraft.records.record_type import Reading

# A column of times by its name, with the seconds that 1 in it stands for.
TIMES = re.compile(r"^(?:t|time|times|timestamp|timestamps)(?:[ _(\[]*(s|sec|seconds|ms|us|µs|ns)[)\]]?)?$", re.IGNORECASE)
SECONDS = {"s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
UNSTEADY = 0.5  # of a step: a gap between readings that differs by more is told


def read_imu(source: FileOrBytes, reading: Reading, *, rate_hz: float | None) -> Imu:
    """Read a file by what it holds. `rate_hz` is what the user tells; None: the file must say.

    Raises InputError for no such file, no readings, damaged or cut ones, and where nobody says the rate.
    """
    label, stream = open_named(source, name=reading.label, wanted=WANTED_READINGS, find=reading.find)
    label = f"{reading.label}: {label}"
    with stream:
        head = stream.read(8)
        if head.startswith(NPY):
            return Imu(npy_in(stream, label), _rate(rate_hz, label))
        if head.startswith(b"PK"):
            return _of_npz(stream, label, rate_hz)
        if head.lstrip()[:1] in (b"{", b"["):
            return _of_json(json_in(stream, label), label, rate_hz)
        return _of_table(text_in(stream, label), reading, label, rate_hz)


def _rate(rate_hz: float | None, label: str) -> float:
    if rate_hz is None:
        raise InputError(f'{label} does not say its rate; wanted: {{"file": ..., "rate_hz": samples per second}}')
    return rate_hz


def _of_npz(stream: IO[bytes], label: str, rate_hz: float | None) -> Imu:
    """`samples` and `rate_hz` of an archive of arrays."""
    try:
        with zipfile.ZipFile(stream) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            if "samples" not in names:
                raise InputError(f"{label} holds {choices(names, most=6)}; wanted: the array `samples`, and `rate_hz`")
            inside = [f"{name}.npy" for name in ("samples", "rate_hz") if name in names]
            if (most := max(archive.getinfo(name).file_size for name in inside)) > FILE_BYTES:
                raise InputError(f"{label} holds an array of {most:,} bytes, more than {FILE_BYTES:,}; cut it into pieces")
            stated = {name.removesuffix(".npy"): npy_in(io.BytesIO(archive.read(name)), label) for name in inside}
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, ValueError) as error:
        raise InputError(f"{label} cannot be read as arrays: {reason(error)}") from error
    stated_hz = float(stated["rate_hz"].reshape(-1)[0]) if stated.get("rate_hz") is not None and stated["rate_hz"].size else None
    return Imu(stated["samples"], _rate(rate_hz if rate_hz is not None else stated_hz, label))


def _of_json(content: Any, label: str, rate_hz: float | None) -> Imu:
    """`{"samples": [[...]], "rate_hz": ..., "names": [...]}`, or the lists alone."""
    if not isinstance(content, dict):
        return Imu(content, _rate(rate_hz, label))
    if "samples" not in content:
        raise InputError(f'{label} holds {choices(map(str, content))}; wanted: {{"samples": [[...], ...], "rate_hz": ...}}')
    names = content.get("names") or ()
    stated = content.get("rate_hz")
    return Imu(content["samples"], _rate(rate_hz if rate_hz is not None else stated, label), tuple(map(str, names)))


# -- tables -------------------------------------------------------------------------------------------------------------


def _of_table(text: str, reading: Reading, label: str, rate_hz: float | None) -> Imu:
    """One row per sample: a column of times, if there is one, and a column per channel; the first row may name them."""
    import numpy

    rows = _rows(text)
    heads = [] if not rows or _are_numbers(rows[0]) else [cell.strip() for cell in rows.pop(0)]
    if not rows:
        raise InputError(f"{label} has no rows of numbers; wanted: a table with one row per sample")
    width = len(heads) or len(rows[0])
    for number, row in enumerate(rows, start=2 if heads else 1):
        if len(row) != width or not _are_numbers(row):
            raise InputError(f"{label} row {number} is {','.join(row)[:60]!r}; wanted: {width} numbers")
    table = numpy.array([[float(cell) for cell in row] for row in rows]).T
    found = next(((index, match) for index, head in enumerate(heads) if (match := TIMES.match(head))), None)
    if found is None:
        return Imu(table, _rate(rate_hz, f"{label} has no column of times, such as time_s, and"), tuple(heads))
    index, match = found
    stated = _rate_of(table[index] * SECONDS[(match[1] or "s").lower()], reading, label) if rate_hz is None else rate_hz
    return Imu(numpy.delete(table, index, axis=0), stated, tuple(head for at, head in enumerate(heads) if at != index))


def _rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    first = lines[0] if lines else ""
    letter = max(",;\t", key=first.count)
    return list(csv.reader(lines, delimiter=letter))


def _are_numbers(row: Sequence[str]) -> bool:
    try:
        return bool([float(cell) for cell in row])
    except ValueError:
        return False


def _rate_of(times: Any, reading: Reading, label: str) -> float:
    """Samples per second, of times that rise. Gaps that differ are told: a model takes them as even."""
    import numpy

    steps = numpy.diff(times)
    if steps.size == 0 or not bool(numpy.isfinite(steps).all()) or float(steps.min()) <= 0:
        raise InputError(f"{label}: its times do not rise; wanted: at least two, each later than the one before")
    rate = float(steps.size / (times[-1] - times[0]))
    if not math.isfinite(rate):
        raise InputError(f"{label}: its times are too near each other")
    widest = float(numpy.abs(steps * rate - 1.0).max())
    if widest > UNSTEADY:
        reading.tell(f"its samples are not evenly spaced (a gap is {1 + widest:.2g} times the mean); they are taken as {rate:.4g} Hz")
    return rate
