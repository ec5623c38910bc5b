"""Sweeps: axes with their points, as the command line and sweep files name them, and the cells that they span."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from modelgraft.plugin import InputError
from modelgraft_plugins.benching.results import Method, Value
from modelgraft_plugins.benching.words import Text, counts, value_named, word_of

PLACING = ("backend", "precision", "device", "threads", "batch")  # axes of how a graph is run; every other changes the graph
NUMBERS = frozenset({"threads", "batch"})
MOST_CELLS = 10_000  # they are checked in minutes, and measured in hours
GRAPH = "graph"  # the axis of the graphs themselves


@dataclass(frozen=True, slots=True)
class Point:
    """One value of an axis: what it is called, and what it sets, by names as a person writes them."""

    label: Value
    sets: Mapping[str, Any]  # Any: words of the command line, or values of a file


@dataclass(frozen=True, slots=True)
class Axis:
    """What a sweep varies; `place` is where that is written, as `file:line`, or "" on the command line."""

    name: str
    points: tuple[Point, ...]
    place: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """All that a bench is asked for, from a sweep file, the command line, or both.

    axes      the swept ones, in the order in which they were given, then those of PLACING
    settings  what holds for every cell, as `--set`
    records   the data that every cell runs: a file or a folder;  inputs  or one record, as `--input` has it
    options   of opening, by name: init, fallback, max_memory
    ports     that are wanted beside the outputs, as "node.port", where a graph has them
    """

    graphs: Sequence[str]
    axes: Sequence[Axis] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)  # Any: words, or values of a file
    records: str | None = None
    inputs: Sequence[tuple[str, str]] = ()
    metrics: Sequence[str] = ()
    outputs: Sequence[str] | None = None
    allow: Sequence[str] = ()
    method: Method = field(default_factory=Method)
    options: Mapping[str, Any] = field(default_factory=dict)  # Any: of the type of each option
    ports: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Combination:
    """One graph with one point of each axis."""

    graph: str
    points: Mapping[str, Point]

    @property
    def values(self) -> dict[str, Value]:
        """The values by axis, the graph first."""
        return {GRAPH: self.graph, **{name: point.label for name, point in self.points.items()}}


def combinations(sweep: Sweep) -> Iterator[Combination]:
    """Every cell of the matrix, the last axis varying fastest. Raises InputError for more than anybody waits for."""
    count = len(sweep.graphs) * math.prod(len(axis.points) for axis in sweep.axes)
    if count > MOST_CELLS:
        sizes = " x ".join([f"{len(sweep.graphs)} graph", *(f"{len(axis.points)} {axis.name}" for axis in sweep.axes)])
        raise InputError(f"the sweep spans {count:,} cells ({sizes}); a bench takes {MOST_CELLS:,} at most")
    for graph in sweep.graphs:
        for points in product(*(axis.points for axis in sweep.axes)):
            yield Combination(graph, {axis.name: point for axis, point in zip(sweep.axes, points, strict=True)})


def simple_axis(name: str, values: Sequence[Any], place: str = "") -> Axis:  # Any: words, or values of a file
    """An axis whose values are those of one thing. Raises ValueError for a number of threads or records that is none."""
    given = counts(values) if name in NUMBERS else values
    points = [Point(_label(value), {name: value}) for value in given]
    return Axis(name, tuple(points), place)


def _label(value: Any) -> Value:  # Any: a word, or a value of a file
    if isinstance(value, Text):
        return str(value)
    return value_named(value) if isinstance(value, str) else value_named(word_of(value))


def ordered(axes: Sequence[Axis]) -> tuple[Axis, ...]:
    """The axes of what is computed as they were given, then those of how it is run. Raises InputError for one that is there twice."""
    names = [axis.name for axis in axes]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"the axis '{twice}' is given twice; give all its values in one")
    if GRAPH in names:
        raise InputError("an axis cannot be called 'graph': the graphs are one already, by their names")
    own = [axis for axis in axes if axis.name not in PLACING]
    return (*own, *(axis for name in PLACING for axis in axes if axis.name == name))
