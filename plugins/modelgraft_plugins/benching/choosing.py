"""`--choose`: each node measured on every backend, the winners together, and the best of them written into the graph."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelgraft_plugins.benching.choosing_report import comment_of, document_of, say_choice
from modelgraft_plugins.benching.choosing_search import Found, search
from modelgraft_plugins.benching.choosing_trials import Placing, Trials
from modelgraft_plugins.benching.choosing_wish import wish_of
from modelgraft_plugins.benching.commanding import command_for
from modelgraft_plugins.benching.files import write_results
from modelgraft_plugins.benching.measuring import PART_OF_MEMORY, TIMEOUT_S, Measured, measure
from modelgraft_plugins.benching.placing import unit_of
from modelgraft_plugins.benching.placing_file import Placed, Target, place, target_of
from modelgraft_plugins.benching.results import VERSION, Cell, Method, Quality, Results
from modelgraft_plugins.benching.surroundings import free_memory, surroundings

if TYPE_CHECKING:
    from modelgraft.commands import CliSession
    from modelgraft_plugins.benching.asking import Wishes
    from modelgraft_plugins.benching.cells import WantedCell
    from modelgraft_plugins.benching.data import Records
    from modelgraft_plugins.benching.measuring_state import Judge
    from modelgraft_plugins.benching.sweeps import Sweep

FOUND, NONE_FULFILS = 0, 1


def choose(session: CliSession, sweep: Sweep, wishes: Wishes, base: WantedCell, records: Records, *, judge: Judge) -> int:
    """Choose a placement and write it; gives the exit code: 1 where no placement fulfils the conditions."""
    from modelgraft_plugins.benching.running import draw_page

    wish, tell = wish_of(sweep, wishes), session.screen.note if session.progress else _nobody
    placing = Placing.of(base, session.registry, offline=session.offline)
    target = target_of(base.graph, placing.plan_of({}).graph.graph.path, out=wishes.choose_out)
    if target.why:
        session.screen.note(f"{target.why}; the block is told at the end")
    last: list[Measured] = []

    def judged(
        cell: str, answers: Any, failed: Mapping[int, object], *, media: Sequence[str]
    ) -> tuple[Sequence[Quality], Mapping[str, str]]:
        del cell
        return judge(base.id, answers, failed, media=media)  # all of them have the ports of the one that was checked

    def measured(cells: Sequence[WantedCell], method: Method) -> Sequence[Cell]:
        limit = wishes.timeout_s or TIMEOUT_S
        last[:] = [measure(cells, records.columns, method, tell=tell, done=lambda _: None, judge=judged, timeout_s=limit)]
        return last[0].cells

    trials = Trials(
        placing,
        wish,
        measured,
        sweep.method,
        records=len(records.inputs),
        most_bytes=int(free_memory() * PART_OF_MEMORY),
        tell=tell,
        command_for=lambda one: command_for(replace(one, settings=one.params, placement={}), sweep),
    )
    found = search(placing.places, wish, trials, tell=tell)
    results = _results(trials, last[0], records)
    placed = _written(found, placing, target, comment_of(found, wish, wishes.choose or "", results, base))
    if wishes.out is not None:
        write_results(results, wishes.out)
    if wishes.is_json:
        session.screen.document(document_of(found, wish, placed, placing.places, results))
    else:
        say_choice(session.screen, found, wish, placed, placing.places)
    return NONE_FULFILS if not draw_page(session, results, wishes.html) or found.best is None else FOUND


def _nobody(_: str) -> None:
    """Nobody listens to what goes on."""


def _written(found: Found, placing: Placing, target: Target, comment: Sequence[str]) -> Placed | None:
    """Write the placement that was found; None where there is nothing to write."""
    if found.best is None or not found.best.placement:
        return None
    wanted = {step.node.name: (step.backend, step.precision or step.dtype) for step in placing.plan_of(found.best.placement).steps}

    def prove(path: Path) -> list[str]:
        steps = placing.plan(path, placing.cell.settings).steps
        odd = [step.node.name for step in steps if wanted.get(step.node.name) != (step.backend, step.precision or step.dtype)]
        return sorted(set(map(unit_of, odd)))

    return place(target, placing.places.keys_of(found.best.placement), comment, prove=prove)


def _results(trials: Trials, last: Measured, records: Records) -> Results:
    """All that was measured, as results."""
    cells = list(trials.cells.values())
    return Results(
        version=VERSION,
        command=("modelgraft", *sys.argv[1:]),
        surroundings=replace(surroundings(), load_during=last.surroundings.load_during, pressure=last.surroundings.pressure),
        method=last.method,
        data=records.about,
        axes={"placement": tuple(cell.id for cell in cells)},
        cells=cells,
        baseline=cells[0].id,
        is_finished=True,
        warnings=last.warnings,
    )
