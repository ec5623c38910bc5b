"""A bench from its first check to its last word: cells, data, figures, files, and the exit code."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from modelgraft.commands import check_writable, refuse_to_replace
from modelgraft.plugin import InputError
from modelgraft_plugins.benching.checking import Checked, check_cells
from modelgraft_plugins.benching.choosing_wish import wish_of
from modelgraft_plugins.benching.comparing import Comparison, compare, worse
from modelgraft_plugins.benching.data import Records, read_records
from modelgraft_plugins.benching.files import plain_results, read_results, write_results
from modelgraft_plugins.benching.judging import Judging, measures_for, ports_wanted
from modelgraft_plugins.benching.measuring import TIMEOUT_S, measure
from modelgraft_plugins.benching.page import write_page
from modelgraft_plugins.benching.pruned import in_cells, none_of, say_pruned
from modelgraft_plugins.benching.results import VERSION, Cell, Results, Value
from modelgraft_plugins.benching.resuming import kept_of, refuse_to_lose, refuse_to_lose_for_page
from modelgraft_plugins.benching.surroundings import surroundings
from modelgraft_plugins.benching.sweeps import GRAPH, Sweep
from modelgraft_plugins.benching.table import say_checked, say_comparison, say_results

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from modelgraft.commands import CliSession
    from modelgraft_plugins.benching.asking import Wishes

OK, FAILED = 0, 1
TOLD_EVERY_S = 2.0  # between two words about a check that goes on
WRITTEN_EVERY_S = 1.0  # a process that is killed loses the work of this time; one that is stopped loses none


def run_bench(session: CliSession, sweep: Sweep, wishes: Wishes) -> int:
    """Run a bench as it was asked for, and give the exit code of the command."""
    old = _looked_at(wishes)
    if wishes.choose is not None:
        wish_of(sweep, wishes)
    sweep = replace(sweep, ports=ports_wanted(sweep.metrics, session.registry))
    checked = check_cells(sweep, session.registry, offline=session.offline, tell=_counting(session))
    if not checked.fitting:
        return _none_fits(session, checked, wishes)
    if wishes.is_check:
        if sweep.records is not None:
            read_records(sweep, checked.inputs, session)
        _say_checked(session, checked, wishes)
        return OK
    records = read_records(sweep, checked.inputs, session)
    judge = Judging(measures_for(sweep.metrics, checked.ports, records, session.registry), records, sweep.method.seed)
    if wishes.choose is not None:
        from modelgraft_plugins.benching.choosing import choose

        return choose(session, sweep, wishes, checked.fitting[0], records, judge=judge)
    with _telling_what_is_left(session, wishes) as bench:
        results = bench.results = _measured(bench, session, sweep, checked, records, judge)
    return _finish(session, results, old, wishes)


def _looked_at(wishes: Wishes) -> Results | None:
    """Look at every file before anything is done: what cannot be written, what would be lost, what cannot be read."""
    for path in (wishes.out, wishes.html):
        if path is not None:
            check_writable(path)
            if wishes.compare is not None:
                refuse_to_replace(path, {wishes.compare: "the older results"})
    if wishes.is_resumed and wishes.out is None:
        raise InputError("--resume goes on with the file of --out; name it")
    if wishes.choose_out is not None and wishes.choose is None:
        raise InputError("--choose-out is where --choose writes; say what it is to choose by")
    if wishes.fail_over is not None and wishes.compare is None:
        raise InputError("--fail-over looks at what moved since --compare OLD.json; name that")
    old = read_results(wishes.compare) if wishes.compare is not None else None
    if wishes.out is not None and not wishes.is_resumed and not wishes.is_check:
        refuse_to_lose(wishes.out)
    if wishes.html is not None and not wishes.is_check:
        refuse_to_lose_for_page(wishes.html, {} if wishes.out is None else {wishes.out: "the results"})
    return old


# -- measuring ----------------------------------------------------------------------------------------------------------


class _Bench:
    """What is known so far, and the file that it is written into: soon after more is known, and at most once a second."""

    def __init__(self, wishes: Wishes) -> None:
        self.wishes = wishes
        self.results: Results | None = None
        self._lock = threading.Lock()
        self._soon: threading.Timer | None = None

    def take(self, cell: Cell) -> None:
        """Put what is known of a cell into the results."""
        assert self.results is not None, "results stand there before a cell is measured"
        self.results = replace(self.results, cells=tuple(cell if one.id == cell.id else one for one in self.results.cells))
        with self._lock:
            if self.wishes.out is not None and self._soon is None:
                self._soon = threading.Timer(WRITTEN_EVERY_S, self._write_soon)
                self._soon.daemon = True
                self._soon.start()

    def _write_soon(self) -> None:
        with contextlib.suppress(InputError):  # no room for a moment: at the end it is told
            self.write()

    def write(self) -> None:
        """Write the file, where one is wanted. Raises InputError where it cannot be."""
        with self._lock:
            if self._soon is not None:
                self._soon.cancel()
                self._soon = None
            if self.wishes.out is not None and self.results is not None:
                write_results(self.results, self.wishes.out)


@contextlib.contextmanager
def _telling_what_is_left(session: CliSession, wishes: Wishes) -> Iterator[_Bench]:
    """Where a bench is stopped, say what it has found so far and where that is."""
    bench = _Bench(wishes)
    try:
        yield bench
    except BaseException:
        bench.write()
        found = [] if bench.results is None else [cell for cell in bench.results.cells if cell.samples]
        if found and wishes.out is not None:
            session.screen.note(f"what was measured of {in_cells(len(found))} is kept in {wishes.out}; --resume goes on with it")
        elif found:
            session.screen.note(f"{in_cells(len(found))} were measured in part; with --out FILE.json that is kept when a bench is stopped")
        raise


def _measured(bench: _Bench, session: CliSession, sweep: Sweep, checked: Checked, records: Records, judge: Judging) -> Results:
    """Measure the cells that fit; what is known is written after each step."""
    around = surroundings()
    planned = [cell.planned for cell in checked.fitting]
    before = None
    if bench.wishes.is_resumed and bench.wishes.out is not None:
        before = kept_of(bench.wishes.out, method=sweep.method, data=records.about, versions=around.versions, cells=planned)
    kept = {cell.key: cell for cell in before.cells if cell.state != "pruned"} if before is not None else {}
    if before is not None and before.is_finished and {cell.key for cell in planned} <= kept.keys():
        session.screen.note(f"{bench.wishes.out} is finished: nothing is left to measure")
        return before
    bench.results = Results(
        version=VERSION,
        command=("modelgraft", *sys.argv[1:]),
        surroundings=around,
        method=sweep.method,
        data=records.about,
        axes=axes_of(sweep),
        cells=_in_order([_as_planned(cell, kept.get(cell.key)) for cell in planned], checked.pruned),
        baseline=planned[0].id,
    )
    bench.write()
    session.screen.note(
        f"{in_cells(len(planned))}, {_in_records(records.about.records)}, in an order that the seed {sweep.method.seed} shuffles"
    )
    found = measure(
        checked.fitting,
        records.columns,
        sweep.method,
        tell=_telling(session),
        done=bench.take,
        kept=kept,
        judge=judge,
        timeout_s=bench.wishes.timeout_s or TIMEOUT_S,
    )
    bench.results = replace(
        bench.results,
        cells=_in_order(found.cells, checked.pruned),
        method=found.method,
        surroundings=found.surroundings,
        baseline=found.baseline or planned[0].id,
        warnings=(*bench.results.warnings, *found.warnings),
        is_finished=True,
    )
    bench.write()
    return bench.results


def _in_records(count: int) -> str:
    return f"{count} record{'s' * (count != 1)}"


def _as_planned(planned: Cell, kept: Cell | None) -> Cell:
    return planned if kept is None else replace(kept, id=planned.id, values=planned.values, command=planned.command)


def axes_of(sweep: Sweep) -> Mapping[str, Sequence[Value]]:
    """The values of each axis, the graphs first."""
    return {GRAPH: tuple(sweep.graphs), **{axis.name: tuple(point.label for point in axis.points) for axis in sweep.axes}}


def _in_order(cells: Sequence[Cell], others: Sequence[Cell]) -> tuple[Cell, ...]:
    """All cells in the order of the matrix."""
    return tuple(sorted((*cells, *others), key=lambda cell: int(cell.id.removeprefix("c"))))


# -- telling ------------------------------------------------------------------------------------------------------------


def _telling(session: CliSession) -> Any:  # Any: what takes a text
    return session.screen.note if session.progress else lambda text: None  # noqa: ARG005 nobody listens


def _counting(session: CliSession) -> Any:  # Any: what takes two numbers
    """Tells how many cells are checked, at most every few seconds."""
    last = time.monotonic()

    def tell(done: int, of: int) -> None:
        nonlocal last
        if session.progress and time.monotonic() - last > TOLD_EVERY_S:
            last = time.monotonic()
            session.screen.note(f"checked {done} of {of} cells")

    return tell


def _none_fits(session: CliSession, checked: Checked, wishes: Wishes) -> int:
    if wishes.is_json:
        document = {"kind": "graph", "message": none_of(len(checked.pruned)), "cells": _plain(checked.pruned)}
        session.screen.document({"ok": False, "error": document})
    else:
        say_pruned(session.screen.note, checked.pruned, every=checked.pruned)
    return FAILED


def _say_checked(session: CliSession, checked: Checked, wishes: Wishes) -> None:
    if wishes.is_json:
        cells = _in_order([replace(cell.planned, state="unfinished") for cell in checked.fitting], checked.pruned)
        session.screen.document({"ok": True, "fitting": len(checked.fitting), "pruned": len(checked.pruned), "cells": _plain(cells)})
    else:
        say_checked(session.screen, checked)


def _plain(cells: Sequence[Cell]) -> Any:  # Any: JSON
    from pydantic import TypeAdapter

    return TypeAdapter(Sequence[Cell]).dump_python(cells, mode="json")


def _finish(session: CliSession, results: Results, old: Results | None, wishes: Wishes) -> int:
    """Answer, compare, write the page, and give the exit code."""
    found = compare(old, results) if old is not None else None
    if wishes.is_json:
        comparison = {} if found is None else {"comparison": asdict(found)}
        session.screen.document({**plain_results(results), **comparison})
    else:
        say_results(session.screen, results)
        if found is not None:
            say_comparison(session.screen, found)
    failed = [cell for cell in results.cells if cell.state == "failed"]
    is_drawn = draw_page(session, results, wishes.html)
    return FAILED if failed or _fell(session, found, wishes) or not is_drawn else OK


def draw_page(session: CliSession, results: Results, file: Path | None) -> bool:
    """Write the page, where one is wanted. One that cannot be written any more is told, and takes no figures with it."""
    if file is None:
        return True
    try:
        write_page(results, file)
    except InputError as error:
        session.screen.note(f"error: {error}")
        return False
    session.screen.note(f"wrote {file}")
    return True


def _fell(session: CliSession, found: Comparison | None, wishes: Wishes) -> bool:
    """Whether a cell became worse than is allowed; each is told."""
    if found is None or wishes.fail_over is None:
        return False
    fallen = worse(found, by=wishes.fail_over)
    is_met = bool(found.cells)
    if not is_met:
        session.screen.note(f"no cell is in {wishes.compare} as well, so that --fail-over has nothing to look at")
    lost = [cell for cell in found.cells if any(note.startswith("was measured") for note in cell.notes)]
    for cell, moved in fallen:
        session.screen.note(f"{cell.id}: {moved.figure} became {moved.part:.1%} worse, more than --fail-over {wishes.fail_over:.3g}")
    for cell in lost:
        session.screen.note(f"{cell.id}: {cell.notes[0]}")
    return bool(fallen or lost or not is_met)
