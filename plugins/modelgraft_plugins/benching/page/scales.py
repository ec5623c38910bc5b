"""Axes: where a value lies on one, and the ticks that it has."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

WIDE = 8  # from the smallest value to the largest; over more, an axis is logarithmic
MARGIN = 0.06  # of an axis, at both ends
STEPS = ((1.0, 2.0, 5.0), (1.0, 3.0), (1.0,))  # of a decade: the densest that gives few enough ticks is taken
NICE = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Scale:
    """An axis from `low` to `high`, both in the units of its values."""

    low: float
    high: float
    is_log: bool
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        """Where a value lies: 0 at the low end, 1 at the high one."""
        low, high, here = (math.log10(one) if self.is_log else one for one in (self.low, self.high, value))
        return (here - low) / (high - low)


def is_figure(value: float | None) -> bool:
    """A number that can be drawn."""
    return value is not None and math.isfinite(value)


def scale_over(values: Iterable[float], *, most: int, is_log: bool | None = None) -> Scale:
    """An axis over these values.

    most    how many ticks there is room for
    is_log  None: where the values span more than eight times, and all are above 0
    """
    found = list(values)
    low, high = min(found), max(found)
    if is_log is None:
        is_log = low > 0 and high / low > WIDE
    if low == high:
        low, high = (low / 1.5, high * 1.5) if low > 0 else (low - 1, high + 1)
    if is_log:
        margin = (high / low) ** MARGIN
        low, high = low / margin, high * margin
        ticks = _log_ticks(low, high, most)
    else:
        margin = (high - low) * MARGIN
        low, high = (low - margin if low < 0 or low > margin else 0.0), high + margin
        ticks = _even_ticks(low, high, most)
    return Scale(low, high, is_log, ticks)


def scale_from_zero(high: float, *, most: int) -> Scale:
    """An axis for bars."""
    high = high if high > 0 else 1.0
    return Scale(0.0, high, is_log=False, ticks=_even_ticks(0.0, high, most))


def _log_ticks(low: float, high: float, most: int) -> tuple[float, ...]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in STEPS:
        ticks = _within(low, high, (step * 10.0**decade for decade in decades for step in steps))
        if len(ticks) <= most:
            break
    if len(ticks) < 3:  # a few per cent around a value have no round step of a decade in them
        return _even_ticks(low, high, most)
    return ticks[:: math.ceil(len(ticks) / most)]


def _even_ticks(low: float, high: float, most: int) -> tuple[float, ...]:
    rough = (high - low) / most
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * nice for nice in NICE if size * nice >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return _within(low, high, (round(index * step, 12) for index in range(first, first + most + 2)))


def _within(low: float, high: float, ticks: Iterable[float]) -> tuple[float, ...]:
    return tuple(tick for tick in ticks if low <= tick <= high)


def tick_text(value: float, say: Callable[[float], str]) -> str:
    """A tick in the words of the values, without digits that say nothing: 2 ms, not 2.00 ms."""
    return re.sub(r"(\.\d*?)0+(?=\D|$)", lambda found: "" if found[1] == "." else found[1], say(value))


def front(points: Sequence[tuple[float, float]], *, higher: bool) -> list[int]:
    """The points that no other beats: those with less of the first figure than all that have better of the second.

    Of equals, the first counts. The result is in the order of the first figure.
    """
    order = sorted(range(len(points)), key=lambda index: (points[index][0], -points[index][1] if higher else points[index][1], index))
    kept: list[int] = []
    for index in order:
        best = points[kept[-1]][1] if kept else None
        if best is None or (points[index][1] > best if higher else points[index][1] < best):
            kept.append(index)
    return kept
