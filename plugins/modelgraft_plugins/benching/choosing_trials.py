"""Placements measured: cells made of them, as many at once as memory allows, and the figures that a choice looks at."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import modelgraft as mg
from modelgraft.commands import fuse, segments_of
from modelgraft.plugin import InputError, ModelgraftError, open_backend
from modelgraft_plugins.benching.cells import WantedCell
from modelgraft_plugins.benching.choosing_search import Tell, Trial, told
from modelgraft_plugins.benching.choosing_wish import Wish, parity_of
from modelgraft_plugins.benching.measuring_figures import NEEDED
from modelgraft_plugins.benching.placing import Placement, Places, places_of
from modelgraft_plugins.benching.results import Cell, Memory, Method

if TYPE_CHECKING:
    from modelgraft.commands import Registry
    from modelgraft.plugin import Plan

TORCH = "torch"  # the option that every other is compared with
PHASES = 4  # that a budget is divided among: alone, together, around, without
BY_GATES = "parity is that of the gates of its parts: no output holds numbers"

# Measures cells on the records of the bench; as `measuring.measure` gives them.
MeasureCells = Callable[[Sequence[WantedCell], Method], Sequence[Cell]]


@dataclass(frozen=True, slots=True)
class Placing:
    """A cell with the places that its graph has."""

    cell: WantedCell
    places: Places
    registry: Registry
    offline: bool = False

    @classmethod
    def of(cls, cell: WantedCell, registry: Registry, *, offline: bool) -> Placing:
        """Find the places. Raises InputError where there are none."""
        found = cls(cell, Places({}), registry, offline)
        start = places_of(found.plan_of({}))
        if not start.units:
            raise InputError(f"{cell.graph} is plain code alone: there is nothing to place")
        joining = next((name for unit in start.units.values() for name, option in unit.options.items() if option.fuses), "")
        apart = replace(found, places=start)
        everywhere = {name: joining for name, unit in start.units.items() if joining in unit.options and unit.start != joining}
        calls, _ = segments_of(apart.plan_of(everywhere))
        together = [tuple(step.node.name for step in call.steps) for call in calls]
        return replace(found, places=places_of(found.plan_of({}), together=together))

    def placed(self, placement: Placement) -> WantedCell:
        """The cell with a placement."""
        return replace(self.cell, placement=self.places.keys_of(placement))

    def plan_of(self, placement: Placement) -> Plan:
        """The plan of a placement; nothing is loaded. Raises what the checker and the planner raise."""
        cell = self.placed(placement) if placement else self.cell
        return self.plan(cell.graph, cell.params)

    def plan(self, graph: Any, params: Mapping[str, Any]) -> Plan:  # Any: as `modelgraft.load` takes them
        """The plan of a graph under the options of the cell."""
        loaded = mg.load(graph, params=params, registry=self.registry, allow=tuple(self.cell.allow))
        options = {name: getattr(self.cell, name) for name in ("backend", "device", "precision", "threads", "max_memory")}
        return mg.plan(mg.check(loaded, offline=self.offline), wanted=self.cell.outputs, **options)

    @property
    def reference(self) -> Placement:
        """Torch wherever it can be: what numbers and answers are compared with."""
        return {name: TORCH for name, unit in self.places.units.items() if TORCH in unit.options and unit.start != TORCH}


@dataclass(slots=True)
class Trials:
    """Measures placements for a search: called with some, it gives the graph as it stands, and a trial of each.

    records  how many there are;  most_bytes  that weights of cells may take at once
    cells    everything that was measured, by id, as it was measured last
    """

    placing: Placing
    wish: Wish
    measure: MeasureCells
    method: Method
    records: int
    most_bytes: int
    tell: Tell
    command_for: Callable[[WantedCell], str] = lambda _: ""
    cells: dict[str, Cell] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    calls: int = 0

    def __call__(self, placements: Sequence[Placement]) -> list[Trial]:
        """Measure. Raises InputError where the graph as it stands, or torch, cannot be measured."""
        method = self._method()
        self.calls += 1
        waiting, found = [self._wanted(placement) for placement in placements], list[Trial]()
        always = [self._wanted({})]
        if self.placing.reference:
            always.insert(0, self._wanted(self.placing.reference))
        for first in always:
            if first.failed:
                raise InputError(f"{first.id}: {first.failed}")
        start = None
        while waiting or start is None:
            batch, waiting = self._batch(always, waiting)
            trials = self._measured(always, batch, method)
            start, *others = trials
            found += others
        return [start, *found]

    def _method(self) -> Method:
        """How it is measured: only what the wish needs, in a part of the time that is left."""
        rounds = self.method.rounds
        if any(figure.name == "p90" for figure in self.wish.figures):
            rounds = max(rounds, math.ceil(NEEDED["90"] / max(1, self.records // max(1, self.placing.cell.batch))))
        budget = self.method.budget_s
        if budget is not None:
            left = budget - (time.monotonic() - self.began)
            budget = max(1.0, left / max(1, PHASES - self.calls))
        return replace(self.method, rounds=rounds, cold=max(1, self.method.cold) if self.wish.needs_fresh else 0, budget_s=budget)

    def _wanted(self, placement: Placement) -> _Wanted:
        """The cell of a placement, planned."""
        name = told(placement)
        cell = self.placing.placed(placement)
        try:
            plan = self.placing.plan_of(placement)
        except ModelgraftError as error:
            return _Wanted(name, placement, cell, None, str(error))
        command, key, values = self.command_for(cell), f"{cell.key} {name}", {**cell.values, "placement": name}
        planned = replace(cell.planned, id=name, key=key, command=command, values=values, memory=Memory(planned=plan.totals.bytes))
        return _Wanted(name, placement, replace(cell, id=name, key=key, command=command, values=values, planned=planned), plan)

    def _batch(self, always: Sequence[_Wanted], waiting: Sequence[_Wanted]) -> tuple[list[_Wanted], list[_Wanted]]:
        """As many of the waiting as fit into memory beside those that are always measured, at least one; and the rest."""
        taken, left = list[_Wanted](), self.most_bytes - sum(one.bytes for one in always)
        for one in waiting:
            if taken and one.bytes > left:
                break
            taken.append(one)
            left -= one.bytes
        return taken, list(waiting[len(taken) :])

    def _measured(self, always: Sequence[_Wanted], batch: Sequence[_Wanted], method: Method) -> list[Trial]:
        """The graph as it stands, then the batch, measured beside each other."""
        every = {one.id: one for one in [*always, *batch] if not one.failed}
        cells = {cell.id: cell for cell in self.measure([one.cell for one in every.values()], method)}
        self.cells |= cells
        for one in always:
            if cells[one.id].state != "measured":
                raise InputError(f"{self.placing.cell.graph} {one.id} cannot be measured: {_why(cells[one.id])}")
        reference = always[0].id
        start = self._trial(always[-1], cells[always[-1].id], is_reference=len(always) == 1, start=None)
        others = [
            Trial(placement=one.placement, figures={}, failed=one.failed, start=start)
            if one.failed
            else self._trial(one, cells[one.id], is_reference=one.id == reference, start=start)
            for one in batch
        ]
        return [start, *others]

    def _trial(self, one: _Wanted, cell: Cell, *, is_reference: bool, start: Trial | None) -> Trial:
        if cell.state != "measured":
            return Trial(placement=one.placement, figures={}, cell=cell, failed=_why(cell), start=start)
        figures = {figure.name: figure.taken(cell) for figure in self.wish.figures}
        lacks = {name: _lacking(cell, name) for name, value in figures.items() if value is None}
        if is_reference:
            figures |= {name: 1.0 for name in ("parity", "agreement") if name in figures}
        elif "parity" in figures and parity_of(cell) is None and one.plan is not None:
            figures["parity"], lacks["parity"] = gates_of(one.plan)
        return Trial(placement=one.placement, figures=figures, cell=cell, lacks=lacks, start=start)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A placement on its way to be measured; `failed` says why it cannot be planned."""

    id: str
    placement: Placement
    cell: WantedCell
    plan: Plan | None
    failed: str = ""

    @property
    def bytes(self) -> int:
        """Of its weights, as far as they are known."""
        return (self.plan and self.plan.totals.bytes) or 0


def gates_of(plan: Plan) -> tuple[float | None, str]:
    """The parity of a plan whose outputs hold no numbers: the least of its parts, as their gates found them when they were made.

    Gives the parity, and what must be known of it; None, and why, where a part keeps no figure.
    """
    registry, worst = plan.graph.graph.registry, 0.0
    for step in fuse(plan).steps:
        if step.backend == TORCH or (step.node.component.module is None and not step.node.parts):
            continue
        found = open_backend(registry, step.backend).recorded(step.node, precision=step.precision or step.dtype).get("parity")
        if found is None:
            return None, f"no output holds numbers, and nothing is kept of how far {step.node.name} is from torch"
        worst = max(worst, float(found["relative"]))
    return 1 - worst, BY_GATES


def _why(cell: Cell) -> str:
    return "; ".join(reason.text for reason in cell.reasons) or f"it is {cell.state}"


def _lacking(cell: Cell, name: str) -> str:
    """Why a figure was not taken."""
    untaken = {"memory": "memory.resident", "resident": "memory.resident", "first_token": "first_token_s", "per_token": "per_token_s"}
    named = cell.untaken.get(untaken.get(name, name))
    return named or next((text for key, text in cell.untaken.items() if key.startswith(f"{name}.")), "it was not taken")
