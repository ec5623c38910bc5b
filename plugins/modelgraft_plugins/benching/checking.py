"""Cells checked and planned without weights: what fits is ready to be measured, what does not is told with its reasons."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import modelgraft
from modelgraft.commands import for_command, forecasts, in_bytes, most_demanding, unready
from modelgraft.plugin import GraphError, InputError, ModelgraftError, Problem
from modelgraft_plugins.benching.cells import WantedCell
from modelgraft_plugins.benching.commanding import command_for
from modelgraft_plugins.benching.keys import digest_of_plan, key_of
from modelgraft_plugins.benching.naming import settings_for
from modelgraft_plugins.benching.results import Cell, Memory, NodeCost, Reason
from modelgraft_plugins.benching.sweeps import NUMBERS, PLACING, Combination, Sweep, combinations
from modelgraft_plugins.benching.words import Text, counts, word_of

if TYPE_CHECKING:
    from modelgraft import Graph
    from modelgraft.commands import GraphInput, Registry
    from modelgraft.plugin import Plan, Port, Step


@dataclass(frozen=True, slots=True)
class Checked:
    """The cells of a sweep, in the order of the matrix.

    fitting  those that can be measured;  pruned  the others, as results with their reasons
    inputs   what graphs of fitting cells take, by name;  ports  by fitting cell: what it gives, by name
    """

    fitting: Sequence[WantedCell]
    pruned: Sequence[Cell]
    inputs: Mapping[str, GraphInput]
    ports: Mapping[str, Mapping[str, Port]]


def check_cells(sweep: Sweep, registry: Registry, *, offline: bool, tell: Callable[[int, int], None]) -> Checked:
    """Check and plan every cell; what does not fit together is pruned.

    tell  hears how many cells are done, of how many

    Raises GraphError for a graph that cannot be read at all, InputError for an axis that means nothing in any of the graphs.
    """
    graphs = {name: _read(name, sweep, registry) for name in sweep.graphs}
    every = list(combinations(sweep))
    _refuse_unknown(every, graphs, sweep)
    fitting, pruned = list[WantedCell](), list[Cell]()
    inputs: dict[str, GraphInput] = {}
    ports: dict[str, Mapping[str, Port]] = {}
    known: dict[str, str] = {}
    for number, found in enumerate(every, 1):
        cell = _blank(f"c{number}", found, sweep)
        try:
            cell, plan = _planned(_set(cell, found, sweep, graphs[found.graph]), sweep, registry, offline=offline)
            reasons = [*_foreseen(plan, cell), *_repeats(cell, known)]
        except ModelgraftError as error:
            reasons = list(_reasons(error))
        if reasons:
            pruned.append(replace(cell.planned, state="pruned", reasons=tuple(reasons)))
        else:
            known[cell.key] = cell.id
            fitting.append(cell)
            inputs = {**plan.graph.inputs, **inputs}
            ports[cell.id] = _ports(plan)
        tell(number, len(every))
    return Checked(fitting, pruned, inputs, ports)


def _read(name: str, sweep: Sweep, registry: Registry) -> Graph:
    """A graph as far as a sweep must know it, to find what its names mean. Raises GraphError when it cannot be read."""
    allow, plain = (*sweep.allow, "unused"), _words(sweep.settings)
    try:
        return modelgraft.load(name, params=plain, registry=registry, allow=allow)
    except GraphError:
        given = {key: value for axis in sweep.axes for key, value in axis.points[0].sets.items() if key not in PLACING}
        try:  # a param that has no default may be what is swept
            return modelgraft.load(name, params={**plain, **_words(given)}, registry=registry, allow=allow)
        except GraphError:
            pass
        raise


def _words(sets: Mapping[str, Any]) -> dict[str, Any]:  # Any: words, or values of a file
    return {key: word_of(value) if isinstance(value, Text) else value for key, value in sets.items()}


def _refuse_unknown(every: Sequence[Combination], graphs: Mapping[str, Graph], sweep: Sweep) -> None:
    """Raise InputError where an axis means nothing in any of the graphs; cells of those where it means something are measured."""
    problems: dict[str, InputError] = {}
    for found in every:
        if found.graph not in problems:
            try:
                settings_for(_given(found), sweep.settings, graphs[found.graph])
            except InputError as error:
                problems[found.graph] = error
    if len(problems) == len(graphs):
        raise next(iter(problems.values()))


def _given(found: Combination) -> list[tuple[str, Any]]:  # Any: words, or values of a file
    return [pair for point in found.points.values() for pair in point.sets.items()]


def _blank(id: str, found: Combination, sweep: Sweep) -> WantedCell:
    """A cell before anything is known of it."""
    planned = Cell(id=id, key="", values=found.values, command="", state="unfinished", graph=found.graph)
    options = {**sweep.options, "seed": sweep.method.seed, "allow": sweep.allow, "outputs": sweep.outputs}
    return WantedCell(id=id, key="", values=found.values, graph=found.graph, command="", planned=planned, **options)


def _set(cell: WantedCell, found: Combination, sweep: Sweep, graph: Graph) -> WantedCell:
    """The cell with what its values mean in its graph. Raises InputError for a name that means nothing there."""
    keys = settings_for(_given(found), sweep.settings, graph)
    own = {name: value for name, value in keys.items() if name in PLACING and name not in sweep.settings}
    placing: dict[str, Any] = {name: _placed(name, value) for name, value in own.items()}  # Any: of each field
    settings = {key: value for key, value in keys.items() if key not in own}
    cell = replace(cell, settings=settings, **placing)
    command = command_for(cell, sweep)
    return replace(cell, command=command, planned=replace(cell.planned, command=command))


def _placed(name: str, value: Any) -> Any:  # Any: a word, or a value of a file
    try:
        return counts([value])[0] if name in NUMBERS else str(value)
    except ValueError as error:
        raise InputError(f"{name}: {error}") from error


def _planned(cell: WantedCell, sweep: Sweep, registry: Registry, *, offline: bool) -> tuple[WantedCell, Plan]:
    """The cell with what is known of it without weights. Raises what the checker and the planner raise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", modelgraft.ModelgraftWarning)  # what follows where a part is swapped, of each of many cells
        loaded = modelgraft.load(cell.graph, params=cell.params, registry=registry, allow=tuple(cell.allow))
    solved = modelgraft.check(loaded, offline=offline)
    placed = {name: getattr(cell, name) for name in ("backend", "device", "precision", "threads", "max_memory")}
    if sweep.ports:
        cell = replace(cell, outputs=tuple(dict.fromkeys((*(cell.outputs or solved.outputs), *sweep.ports))))
    plan = modelgraft.plan(solved, wanted=cell.outputs, **placed)
    planned = replace(
        cell.planned,
        key=key_of(plan, batch=cell.batch, threads=cell.threads),
        digest=digest_of_plan(plan, seed=cell.seed, init=cell.init),
        parameters=plan.totals.parameters,
        nodes=tuple(map(_cost, plan.steps)),
        memory=Memory(planned=plan.totals.bytes),
    )
    return replace(cell, key=planned.key, planned=planned), plan


def _ports(plan: Plan) -> dict[str, Port]:
    """What a cell gives, by name."""
    found = {name: plan.graph.port_of(ref) for name, ref in plan.wanted.items()}
    return {name: port for name, port in found.items() if port is not None}


def _cost(step: Step) -> NodeCost:
    component, total = step.node.component.id, step.parameters.total
    return NodeCost(node=step.node.name, component=component, backend=step.backend, parameters=total, bytes=step.bytes)


def _foreseen(plan: Plan, cell: WantedCell) -> list[Reason]:
    """What a run would refuse as things stand here: too little memory, weights that are not there, parts that cannot be exported, a backend
    that lacks its library."""
    found = [
        f"{forecast.device} must hold {in_bytes(forecast.bytes)} at once, and may hold {in_bytes(forecast.limit)}"
        for forecast in forecasts(plan)
        if not forecast.fits
    ]
    if told := most_demanding(plan.steps).told():
        found.append(told)
    lacking = [problem for problem in plan.graph.forecasts if problem.code == "no-weights" and cell.init is None]
    unexported = [step for step in plan.steps if cell.fallback is None and _needs_export(step, plan)]
    return [
        *(Reason(code="too-little-memory", text=text) for text in found),
        *map(_reason, (*lacking, *unready(plan))),
        *(
            Reason(
                code="not-exportable",
                text=f"{step.node.name}: {step.node.component.id} cannot be exported, and {step.backend} runs exports alone",
                place=for_command(step.node.place.short),
            )
            for step in unexported
        ),
    ]


def _needs_export(step: Step, plan: Plan) -> bool:
    """Whether a node is to run on a backend that takes exports alone, and has none."""
    card, component = plan.graph.graph.registry.backends.get(step.backend), step.node.component
    return card is not None and card.fuses and component.module is not None and not component.exportable


def _repeats(cell: WantedCell, known: Mapping[str, str]) -> list[Reason]:
    """Why a cell that means the same as one before it is not measured again."""
    if cell.key not in known:
        return []
    return [Reason(code="same-cell", text=f"means the same as {known[cell.key]}: what is swept changes nothing in it")]


def _reasons(error: ModelgraftError) -> Iterator[Reason]:
    if isinstance(error, GraphError):
        yield from map(_reason, error.noted)
    else:
        yield Reason(code="wrong-option" if isinstance(error, InputError) else "plugin", text=for_command(error.unworded))


def _reason(problem: Problem) -> Reason:
    hint = f"\n{problem.hint}" if problem.hint else ""
    place = for_command(problem.place.short) if problem.place is not None else ""
    return Reason(code=problem.code, text=for_command(problem.found + hint), place=place)
