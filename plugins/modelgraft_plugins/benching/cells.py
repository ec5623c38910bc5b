"""A cell of a bench: one composition, with one value of each axis, as it is to be measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelgraft_plugins.benching.results import Cell, Value


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedCell:
    """A cell that fits: everything in it is plain, so that it can be sent to another process.

    id         short and unique in a bench: what messages, tables and pages call it
    key        a digest of what the cell means: the same in every file of results
    values     by axis, in the order of the axes: "graph", the swept ones, then "backend", "precision", "batch", "threads",
               "device" where the bench varies them
    graph      a file, or the name of a shipped graph;  settings, allow  as `modelgraft.load` takes them (`params`, `allow`)
    outputs    what is wanted of a run; None: every output of the graph
    threads    of the whole process that measures it, set before torch is imported; None: as many as it takes by itself
    batch      how many records run together
    placement  by node: keys of its `runtime` that go over the graph's, such as {"eye": {"backend": "onnx"}}
    command    one line for a shell that measures this cell alone
    planned    what is known without weights (digest, parameters, nodes, planned bytes), as a result that is unfinished: who
               measures the cell gives it back with its figures, by `dataclasses.replace`
    """

    id: str
    key: str
    values: Mapping[str, Value]
    graph: str
    command: str
    planned: Cell
    settings: Mapping[str, Any] = field(default_factory=dict)  # Any: as `modelgraft.load` takes params
    allow: Sequence[str] = ()
    outputs: Sequence[str] | None = None
    backend: str | None = None
    device: str | None = None
    precision: str | None = None
    threads: int | None = None
    batch: int = 1
    max_memory: str | None = None
    init: str | None = None
    fallback: str | None = None
    seed: int = 0
    offline: bool = False
    placement: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # Any: as `runtime` of a node takes values

    @property
    def params(self) -> dict[str, Any]:  # Any: as `modelgraft.load` takes params
        """What `modelgraft.load(cell.graph, params=...)` is given: the settings, and the placement as keys of nodes."""
        placed = {f"nodes.{node}.runtime.{key}": value for node, keys in self.placement.items() for key, value in keys.items()}
        return {**self.settings, **placed}

    @property
    def opening(self) -> dict[str, Any]:  # Any: each option has its own type
        """What `modelgraft.open` is given beside the graph."""
        names = ("backend", "device", "precision", "threads", "max_memory", "init", "fallback", "seed", "offline")
        return {name: getattr(self, name) for name in names}
