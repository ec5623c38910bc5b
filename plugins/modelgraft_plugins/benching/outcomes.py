"""What cells answer, on disk: written by the process that ran them, read and compared by the one that judges.

Lines of JSON hold what is no array, in tagged lists; arrays lie behind each other in one file, so that who reads them need not
hold them. Nothing that a plugin wrote is run when it is read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import modelgraft as mg
from modelgraft.commands import for_command
from modelgraft.plugin import Record, said

LINES, NUMBERS = "answers.jsonl", "numbers.bin"
ALIGNED = 64  # bytes: every array begins at a multiple, as maps of memory like it


class Outcomes:
    """Takes the outputs of records, one after the other, into a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._lines, self._numbers = folder / LINES, folder / NUMBERS

    def add(self, record: int, outputs: Mapping[str, Any]) -> None:
        """Write the outputs of a record, by its number."""
        with self._numbers.open("ab") as numbers:
            told = {name: _told(value, numbers) for name, value in outputs.items()}
        with self._lines.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps([record, told]) + "\n")


def _told(value: Any, numbers: Any) -> list[Any]:
    """A value as a tagged list; its arrays go into the file of numbers."""
    if value is mg.ABSENT:
        return ["absent"]
    if value is None or isinstance(value, bool | str) or type(value) is int:
        return ["plain", value]
    if isinstance(value, float):
        return ["number", value if math.isfinite(value) else repr(value)]
    if isinstance(value, Record):
        return ["parts", type(value).__name__, {name: _told(part, numbers) for name, part in value.parts().items()}]
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return _array(value, numbers)
    if hasattr(value, "getbands"):  # a picture
        import numpy

        return ["picture", value.mode, _array(numpy.asarray(value), numbers)]
    if isinstance(value, Mapping):
        return ["parts", "", {str(name): _told(part, numbers) for name, part in value.items()}]
    if isinstance(value, list | tuple):
        return ["list", [_told(part, numbers) for part in value]]
    return ["plain", repr(value)[:1000]]


def _array(value: Any, numbers: Any) -> list[Any]:
    import numpy

    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
    array = numpy.asarray(value, order="C")  # `ascontiguousarray` gives a number alone an axis
    if array.dtype.kind not in "biufc":
        return ["plain", repr(array.tolist())[:1000]]
    numbers.write(b"\0" * (-numbers.tell() % ALIGNED))
    start = numbers.tell()
    numbers.write(array.tobytes())
    return ["array", array.dtype.str, list(array.shape), start]


@dataclass(frozen=True, slots=True)
class Answers:
    """What a cell answered, by record and output. Texts and numbers are themselves, tensors and pictures arrays, records mappings."""

    folder: Path

    def read(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Every record that was answered, in the order in which it was."""
        path, numbers = self.folder / LINES, self._mapped()
        if path.exists():
            with path.open(encoding="utf-8") as lines:
                for line in lines:
                    record, told = json.loads(line)
                    yield record, {name: _value(one, numbers) for name, one in told.items()}

    def of(self, records: Iterable[int]) -> dict[int, dict[str, Any]]:
        """The outputs of some records."""
        wanted = set(records)
        return {record: outputs for record, outputs in self.read() if record in wanted}

    def _mapped(self) -> Any:
        """The file of numbers as bytes in memory that the system fills as they are read; None where there are none."""
        path = self.folder / NUMBERS
        if not path.exists() or not path.stat().st_size:
            return None
        import numpy

        return numpy.memmap(path, numpy.uint8, "r")


def _value(told: list[Any], numbers: Any) -> Any:
    match told:
        case ["absent"]:
            return mg.ABSENT
        case ["number", number]:
            return float(number)
        case ["parts", _, parts]:
            return {name: _value(part, numbers) for name, part in parts.items()}
        case ["list", parts]:
            return [_value(part, numbers) for part in parts]
        case ["picture", _, array]:
            return _value(array, numbers)
        case ["array", dtype, shape, start]:
            return _array_in(numbers, dtype, shape, start)
        case _:
            return told[1]


def _array_in(numbers: Any, dtype: str, shape: list[int], start: int) -> Any:
    import numpy

    count = math.prod(shape)
    if not count:
        return numpy.zeros(shape, dtype)
    size = count * numpy.dtype(dtype).itemsize
    return numpy.asarray(numbers[start : start + size]).view(dtype).reshape(shape)


# -- two cells side by side ---------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Distance:
    """How far numbers are apart: over all records, the largest difference and the largest value of the baseline."""

    difference: float = 0.0
    largest: float = 0.0

    @property
    def part(self) -> float:
        """The difference as a part of the largest value, at most 1."""
        return 0.0 if self.difference == 0 else min(1.0, self.difference / self.largest) if self.largest > 0 else 1.0


@dataclass(slots=True)
class Likeness:
    """How alike two cells answer, over the records that both did.

    parity     by output that holds numbers: their distance as a part of the largest
    agreement  the part of the records whose texts, labels and whole numbers are all equal; None where there are none
    unlike     by output: why its numbers cannot be compared
    n          records
    """

    parity: dict[str, float] = field(default_factory=dict)
    agreement: float | None = None
    unlike: dict[str, str] = field(default_factory=dict)
    n: int = 0


def likeness(baseline: Answers, cell: Answers, *, without: Iterable[int] = ()) -> Likeness:
    """Compare the outputs that both have.

    without  records that are left out, because they failed in one of the two
    """
    left_out, found, distances = set(without), Likeness(), dict[str, _Distance]()
    others = dict(cell.read())
    equal, has_answers = 0, False
    for record, outputs in baseline.read():
        other = others.get(record)
        if other is None or record in left_out:
            continue
        walk = _Walk()
        for name in outputs.keys() & other.keys():
            walk.output = name
            walk.compare(outputs[name], other[name])
        found.n += 1
        equal, has_answers = equal + walk.is_equal, has_answers or walk.has_answers
        found.unlike |= walk.unlike
        for name, (difference, largest) in walk.distances.items():
            so_far = distances.setdefault(name, _Distance())
            so_far.difference, so_far.largest = max(so_far.difference, difference), max(so_far.largest, largest)
    found.parity = {name: one.part for name, one in sorted(distances.items()) if name not in found.unlike}
    found.agreement = equal / found.n if has_answers else None
    return found


@dataclass(slots=True)
class _Walk:
    """Two outputs of a record, leaf by leaf: floating numbers and pictures have a distance, all else is equal or not."""

    output: str = ""
    is_equal: bool = True
    has_answers: bool = False
    distances: dict[str, tuple[float, float]] = field(default_factory=dict)
    unlike: dict[str, str] = field(default_factory=dict)

    def compare(self, one: Any, other: Any) -> None:
        if _is_measured(one) and _is_measured(other):
            self._measure(one, other)
        elif isinstance(one, Mapping) and isinstance(other, Mapping) and one.keys() == other.keys():
            for name, part in one.items():
                self.compare(part, other[name])
        elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
            for part, counterpart in zip(one, other, strict=True):
                self.compare(part, counterpart)
        else:
            self.has_answers = True
            self.is_equal = self.is_equal and _same(one, other)

    def _measure(self, one: Any, other: Any) -> None:
        import numpy

        a, b = numpy.asarray(one), numpy.asarray(other)
        if a.shape != b.shape:
            self.unlike[self.output] = f"its shape is {list(b.shape)}, and that of the baseline {list(a.shape)}"
            return
        if not a.size:
            return
        wide = numpy.complex128 if "c" in (a.dtype.kind, b.dtype.kind) else numpy.float64
        a, b = a.astype(wide), b.astype(wide)
        differ = ~((a == b) | (numpy.isnan(a) & numpy.isnan(b)))
        apart = numpy.abs(numpy.subtract(a, b, where=differ, out=numpy.zeros_like(a)))
        largest = numpy.abs(a[numpy.isfinite(a)]).max(initial=0.0)
        worst = math.inf if not numpy.isfinite(apart).all() else float(apart.max())
        before = self.distances.get(self.output, (0.0, 0.0))
        self.distances[self.output] = max(before[0], worst), max(before[1], float(largest))


def _is_measured(value: Any) -> bool:
    """Numbers that are measured: floating ones, and the bytes of pictures; whole numbers are answers."""
    return isinstance(value, float) or (hasattr(value, "dtype") and (value.dtype.kind in "fc" or value.dtype.str == "|u1"))


def _same(one: Any, other: Any) -> bool:
    if hasattr(one, "dtype") and hasattr(other, "dtype"):
        return bool(one.shape == other.shape and (one == other).all())
    return type(one) is type(other) and not hasattr(one, "dtype") and bool(one == other)


def told_error(error: BaseException) -> dict[str, str]:
    """An error as it is sent: its class, its sentence, and where it happened."""
    place = getattr(error, "place", None)
    node = getattr(error, "node", "")
    return {"code": type(error).__name__, "text": for_command(said(error)), "place": place.short if place is not None else str(node or "")}
