"""Results beside older ones: cells that mean the same, and what moved beyond its interval.

Both benches are independent, so the interval of a ratio is put together from those of its two sides (MOVER: Zou and Donner 2008):
what was not as sure then is not surer now. Other machines and other versions are told, because they move everything.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelgraft_plugins.benching.results import Cell, Quality, Results, Spread, Surroundings

Verdict = str  # of MOVES, or "" where nothing is seen
FIGURES: Mapping[str, str] = {  # a figure whose larger value is worse, by what it is called
    "wall_s": "wall time",
    "cpu_s": "CPU time",
    "first_token_s": "first token",
    "per_token_s": "time per token",
}
PARTED = 1.1  # wall and CPU time that move so far apart tell of a machine that did something else


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """A figure of a cell, then and now.

    ratio    new over old: of times, memory and counts; difference: new less old, of qualities; each with its interval
    is_worse whether it moved beyond its interval, to the worse
    is_better the same to the better
    """

    figure: str
    old: float
    new: float
    ratio: Spread | None = None
    difference: Spread | None = None
    is_worse: bool = False
    is_better: bool = False

    @property
    def part(self) -> float:
        """How much worse it is, as a part of what it was; below 0 is better."""
        if self.ratio is not None:
            return self.ratio.value - 1
        change = abs(self.new - self.old) / abs(self.old) if self.old else math.inf * (self.new != self.old)
        return change if self.is_worse else -change


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A cell that stands in both files. `notes` say what is another thing, such as weights or the state."""

    id: str
    key: str
    moved: Sequence[Moved]
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two benches.

    cells   those of both, in the order of the new one;  added, gone  ids of those of one alone, in the file that has them
    others  what is another thing about the machine, the data or the method: nothing that moved is due to the graphs alone then
    """

    cells: Sequence[Compared]
    added: Sequence[str] = ()
    gone: Sequence[str] = ()
    others: Sequence[str] = field(default_factory=tuple)


def compare(old: Results, new: Results) -> Comparison:
    """Compare results by what cells mean, in whatever order they stand and whatever their axes are called."""
    before = {cell.key: cell for cell in old.cells if cell.key}
    now = {cell.key: cell for cell in new.cells if cell.key}
    has_same_data = old.data.digest is not None and old.data.digest == new.data.digest
    return Comparison(
        cells=[_compared(before[key], cell, has_same_data=has_same_data) for key, cell in now.items() if key in before],
        added=[cell.id for key, cell in now.items() if key not in before],
        gone=[cell.id for key, cell in before.items() if key not in now],
        others=tuple(_others(old, new, has_same_data=has_same_data)),
    )


def worse(found: Comparison, *, by: float) -> list[tuple[Compared, Moved]]:
    """What became worse by more than a part, and beyond its interval. CPU time alone does not count: it is there to explain."""
    return [
        (cell, moved)
        for cell in found.cells
        for moved in cell.moved
        if moved.is_worse and moved.part > by and moved.figure != FIGURES["cpu_s"]
    ]


# -- a cell -------------------------------------------------------------------------------------------------------------


def _compared(old: Cell, new: Cell, *, has_same_data: bool) -> Compared:
    moved = list(_moved(old, new))
    notes = []
    if old.state != new.state:
        why = f": {new.reasons[0].text.splitlines()[0]}" if new.reasons else ""
        notes.append(f"was {old.state} and is {new.state}{why}")
    if old.digest != new.digest:
        notes.append("what it is made of is not the same: files of weights, configs, or versions of plugins")
    if len(old.failures) != len(new.failures):
        notes.append(f"{len(new.failures)} records fail, {len(old.failures)} did")
    ratios = {one.figure: one.ratio.value for one in moved if one.ratio is not None}
    wall, cpu = ratios.get(FIGURES["wall_s"]), ratios.get(FIGURES["cpu_s"])
    if wall is not None and cpu is not None and max(wall / cpu, cpu / wall) > PARTED:
        notes.append("wall and CPU time moved apart: the machine may have been busy")
    return Compared(id=new.id, key=new.key, moved=[*moved, *(_qualities(old, new) if has_same_data else ())], notes=notes)


def _moved(old: Cell, new: Cell) -> Iterator[Moved]:
    for name, what in FIGURES.items():
        yield from _ratio(what, getattr(old, name), getattr(new, name))
    yield from _ratio("cold start", old.start.cold, new.start.cold)
    yield from _ratio("warm start", old.start.warm, new.start.warm)
    for what, then, now in (
        ("parameters", old.parameters, new.parameters),
        ("bytes of weights", old.memory.measured, new.memory.measured),
    ):
        if then is not None and now is not None and then != now:
            ratio = Spread(value=now / then) if then else None
            yield Moved(figure=what, old=then, new=now, ratio=ratio, is_worse=now > then, is_better=now < then)


def _ratio(what: str, old: Spread | None, new: Spread | None) -> Iterator[Moved]:
    """New over old, where both are there."""
    if old is None or new is None or old.value <= 0 or new.value <= 0:
        return
    ratio = ratio_of(old, new)
    is_known = ratio.low is not None and ratio.high is not None
    yield Moved(
        figure=what,
        old=old.value,
        new=new.value,
        ratio=ratio,
        is_worse=is_known and (ratio.low or 0) > 1,
        is_better=is_known and (ratio.high or 0) < 1,
    )


def ratio_of(old: Spread, new: Spread) -> Spread:
    """New over old; without an interval where one of the two has none."""
    value, n = new.value / old.value, min(old.n, new.n)
    if None in (old.low, old.high, new.low, new.high):
        return Spread(value=value, n=n)
    bounds = [bound if bound is not None and bound > 0 else math.nan for bound in (new.low, new.high, old.low, old.high)]
    new_low, new_high, old_low, old_high = bounds
    down = math.hypot(math.log(new.value / new_low), math.log(old_high / old.value))
    up = math.hypot(math.log(new_high / new.value), math.log(old.value / old_low))
    if math.isnan(down) or math.isnan(up):
        return Spread(value=value, n=n)
    return Spread(value=value, low=value * math.exp(-down), high=value * math.exp(up), n=n)


def _qualities(old: Cell, new: Cell) -> Iterator[Moved]:
    before = {(one.metric, one.output): one for one in old.quality}
    for one in new.quality:
        then = before.get((one.metric, one.output))
        if then is not None:
            yield _quality(then, one)


def _quality(old: Quality, new: Quality) -> Moved:
    value = new.value - old.value
    low = high = None
    if old.low is not None and old.high is not None and new.low is not None and new.high is not None:
        low = value - math.hypot(new.value - new.low, old.high - old.value)
        high = value + math.hypot(new.high - new.value, old.value - old.low)
    fell = high is not None and high < 0
    rose = low is not None and low > 0
    is_higher_better = new.better == "higher"
    return Moved(
        figure=f"{new.metric} of {new.output}",
        old=old.value,
        new=new.value,
        difference=Spread(value=value, low=low, high=high, n=min(old.n, new.n)),
        is_worse=fell if is_higher_better else rose,
        is_better=rose if is_higher_better else fell,
    )


# -- what surrounds them ------------------------------------------------------------------------------------------------


def _others(old: Results, new: Results, *, has_same_data: bool) -> Iterator[str]:
    if not has_same_data:
        yield f"the data were {_told_data(old)}, and are {_told_data(new)}: qualities are not compared"
    yield from different_versions(old.surroundings.versions, new.surroundings.versions)
    yield from _machines(old.surroundings, new.surroundings)
    if not old.is_finished:
        yield "the older bench was not finished"


def _told_data(results: Results) -> str:
    digest = f" ({results.data.digest[:8]})" if results.data.digest else ""
    return f"{results.data.records} records of {results.data.name}{digest}"


def different_versions(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    """A sentence for each package whose version is another one."""
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            yield f"{name} was {old.get(name) or 'not there'}, and is {new.get(name) or 'not there'}"


def _machines(old: Surroundings, new: Surroundings) -> Iterator[str]:
    pairs: Sequence[tuple[str, Any, Any]] = (
        ("the processor", old.processor, new.processor),
        ("the number of cores", old.cores, new.cores),
        ("the devices", ", ".join(old.devices) or "none", ", ".join(new.devices) or "none"),
        ("the system", old.system, new.system),
    )
    for what, then, now in pairs:
        if then != now:
            yield f"{what} was {then}, and is {now}" if not what.endswith("s") else f"{what} were {then}, and are {now}"
    if old.variables != new.variables:
        names = [name for name in sorted({*old.variables, *new.variables}) if old.variables.get(name) != new.variables.get(name)]
        yield f"variables of the environment are others: {', '.join(names)}"
