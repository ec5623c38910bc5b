"""A bench from its first check to its last word: cells, data, figures, files, and the exit code."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from modelgraft.commands import check_writable
from modelgraft.plugin import InputError
from modelgraft_plugins.benching.checking import Checked, check_cells
from modelgraft_plugins.benching.data import Records, read_records
from modelgraft_plugins.benching.files import plain_results, write_results
from modelgraft_plugins.benching.results import VERSION, Cell, Results, Value
from modelgraft_plugins.benching.sweeps import GRAPH, Sweep
from modelgraft_plugins.benching.table import say_checked, say_pruned, say_results

if TYPE_CHECKING:
    from modelgraft.commands import CliSession
    from modelgraft_plugins.benching.asking import Wishes

OK, FAILED = 0, 1


def run_bench(session: CliSession, sweep: Sweep, wishes: Wishes) -> int:
    """Run a bench as it was asked for, and give the exit code of the command."""
    for path in (wishes.out, wishes.html):
        if path is not None:
            check_writable(path)
    checked = check_cells(sweep, session.registry, offline=session.offline, tell=lambda done, of: None)  # noqa: ARG005 for now
    if not checked.fitting:
        say_pruned(session.screen, checked.pruned, of=len(checked.pruned))
        return FAILED
    if wishes.is_check:
        say_checked(session.screen, checked)
        return OK
    records = read_records(sweep, checked.inputs, session)
    results = _measured(session, sweep, checked, records, wishes)
    if wishes.html is not None:
        _offered("page").write_page(results, wishes.html)
    if wishes.is_json:
        session.screen.document(plain_results(results))
    else:
        say_results(session.screen, results)
    return FAILED if any(cell.state == "failed" for cell in results.cells) else OK


def _measured(session: CliSession, sweep: Sweep, checked: Checked, records: Records, wishes: Wishes) -> Results:
    """Measure the cells that fit; what is known is written after each step."""
    results = Results(
        version=VERSION,
        command=("modelgraft", *sys.argv[1:]),
        surroundings=_offered("surroundings").surroundings(),
        method=sweep.method,
        data=records.about,
        axes=axes_of(sweep),
        cells=_in_order([cell.planned for cell in checked.fitting], checked.pruned),
        baseline=checked.fitting[0].id,
    )

    def done(cell: Cell) -> None:
        nonlocal results
        results = replace(results, cells=tuple(cell if one.id == cell.id else one for one in results.cells))
        if wishes.out is not None:
            write_results(results, wishes.out)

    found = _offered("measuring").measure(checked.fitting, records.inputs, sweep.method, tell=session.screen.note, done=done)
    results = replace(
        results,
        cells=_in_order(found.cells, checked.pruned),
        method=found.method,
        surroundings=found.surroundings,
        baseline=found.baseline or results.baseline,
        warnings=(*results.warnings, *found.warnings),
        is_finished=True,
    )
    if wishes.out is not None:
        write_results(results, wishes.out)
    return results


def _offered(name: str) -> Any:  # Any: a module
    """A module of this plugin that comes with a part of the command."""
    module = f"modelgraft_plugins.benching.{name}"
    if find_spec(module) is None:
        raise InputError(f"this release has no {name}")
    return import_module(module)


def axes_of(sweep: Sweep) -> Mapping[str, Sequence[Value]]:
    """The values of each axis, the graphs first."""
    return {GRAPH: tuple(sweep.graphs), **{axis.name: tuple(point.label for point in axis.points) for axis in sweep.axes}}


def _in_order(cells: Sequence[Cell], others: Sequence[Cell]) -> tuple[Cell, ...]:
    """All cells in the order of the matrix."""
    return tuple(sorted((*cells, *others), key=lambda cell: int(cell.id.removeprefix("c"))))
