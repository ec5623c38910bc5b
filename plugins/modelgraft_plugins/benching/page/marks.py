"""The marks of points: each value of an axis has a hue and a shape of its own, so that neither is needed to tell them apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from modelgraft_plugins.benching.page.amounts import latency
from modelgraft_plugins.benching.page.naming import Names
from modelgraft_plugins.benching.results import Cell

# Of Okabe and Ito, whom most colour-blind readers can tell apart; darker where white paper swallows them, lighter on a dark page.
HUES = (
    ("#0072b2", "#56a8e0"),
    ("#c75000", "#f28e4b"),
    ("#007d5d", "#2fbf97"),
    ("#a8487f", "#dd8fbb"),
    ("#8a6a00", "#d9b83a"),
    ("#3c4fb0", "#98a6f5"),
    ("#5b6470", "#a7b0bc"),
)
SHAPES = (
    "M-5 0A5 5 0 1 1 5 0A5 5 0 1 1-5 0Z",
    "M-4.5-4.5H4.5V4.5H-4.5Z",
    "M0-5.8L5.6 4.2H-5.6Z",
    "M0-6.4L6 0L0 6.4L-6 0Z",
    "M0 5.8L5.6-4.2H-5.6Z",
    "M-5.6-2H-2V-5.6H2V-2H5.6V2H2V5.6H-2V2H-5.6Z",
    "M0-6.2L5.9-1.9L3.6 5H-3.6L-5.9-1.9Z",
)
MOST = 2 * len(SHAPES)  # values of an axis that have a mark of their own: each shape filled, and then hollow


@dataclass(frozen=True, slots=True)
class Marks:
    """Which axes can colour the points, that which does at first, and the mark of each cell by axis.

    axes    beginning with the one that tells most about the time of a call
    values  by axis, as they are written: the mark of each is its place
    of      by the id of a cell: the mark on each of the axes
    """

    axes: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]
    of: dict[str, tuple[int, ...]]

    def first(self, cell: Cell) -> int:
        """The mark of a cell when the page opens."""
        return next(iter(self.of.get(cell.id, ())), 0)


def marks_of(cells: Sequence[Cell], names: Names) -> Marks:
    """Give each measured cell its marks."""
    seen = {axis: tuple(dict.fromkeys(names.value(cell, axis) for cell in cells)) for axis in names.axes}
    axes = [axis for axis in names.axes if 1 < len(seen[axis]) <= MOST]
    axes.sort(key=lambda axis: -_told(cells, [names.value(cell, axis) for cell in cells]))
    return Marks(
        tuple(axes),
        tuple(seen[axis] for axis in axes),
        {cell.id: tuple(seen[axis].index(names.value(cell, axis)) for axis in axes) for cell in cells},
    )


def _told(cells: Sequence[Cell], values: Sequence[str]) -> float:
    """How much of the differences in time lies between the values of an axis: the spread of the means of the logarithms."""
    groups: dict[str, list[float]] = {}
    for cell, value in zip(cells, values, strict=True):
        if time := latency(cell):
            groups.setdefault(value, []).append(math.log(time))
    means = [(math.fsum(group) / len(group), len(group)) for group in groups.values()]
    count = sum(size for _, size in means)
    middle = math.fsum(mean * size for mean, size in means) / count if count else 0.0
    return round(math.fsum(size * (mean - middle) ** 2 for mean, size in means), 9)


def kind(mark: int) -> str:
    """The classes of a mark."""
    return f"k{mark % len(HUES)}" + (" h" if mark >= len(SHAPES) else "")


def point(mark: int, *, x: str, y: str) -> str:
    """A mark in a chart; `x` and `y` with or without a unit."""
    return f"<use href=#s{mark % len(SHAPES)} x={x} y={y} />"


def definitions() -> str:
    """The shapes, once for the page."""
    shapes = "".join(f'<path id=s{index} d="{path}"/>' for index, path in enumerate(SHAPES))
    return f"<svg width=0 height=0 style=position:absolute aria-hidden=true><defs>{shapes}</defs></svg>"


def hues(*, dark: bool) -> str:
    """The colours as variables of CSS."""
    return " ".join(f"--k{index}: {pair[dark]};" for index, pair in enumerate(HUES))


def legend(marks: Marks) -> str:
    """What the marks mean, for each axis; all but the first are hidden until the reader chooses another."""
    if not marks.axes:
        return ""
    options = "".join(f"<option value={index}>{escape(axis)}</option>" for index, axis in enumerate(marks.axes))
    choice = f"<label id=by hidden>marks by <select>{options}</select></label>" if len(marks.axes) > 1 else ""
    rows = (
        f"<p class=legend data-axis={index}{' hidden' * (index > 0)}><b>{escape(axis)}</b> {''.join(map(_entry, enumerate(values)))}</p>"
        for index, (axis, values) in enumerate(zip(marks.axes, marks.values, strict=True))
    )
    return f"<div class=legends>{choice}{''.join(rows)}</div>"


def _entry(entry: tuple[int, str]) -> str:
    mark, text = entry
    return f'<span class="pt {kind(mark)}"><svg width=16 height=16>{point(mark, x="8", y="8")}</svg><i>{escape(text)}</i></span>'
