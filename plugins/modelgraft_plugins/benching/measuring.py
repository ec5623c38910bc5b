"""Measure cells: round by round, in an order that is shuffled anew in each, one at a time, whatever any of them does.

answers   every cell runs every record once, untimed: what it answers, what fails, what moves, what the cache spares
starts    fresh processes, cold and warm, as many times as asked
warm-up   until the running median is steady
rounds    each cell runs the same records once; until the precision, the budget or the number of rounds is reached
figures   medians, ratios within rounds, shares
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from modelgraft_plugins.benching.cells import WantedCell
from modelgraft_plugins.benching.hosts import CellFailed, Host, Hosts, Start, opening_of
from modelgraft_plugins.benching.measuring_answers import answer
from modelgraft_plugins.benching.measuring_figures import ratio_to, with_figures
from modelgraft_plugins.benching.measuring_records import Walk, walk_of
from modelgraft_plugins.benching.measuring_rounds import run_rounds, shuffled, warm_up
from modelgraft_plugins.benching.measuring_state import Bench, Done, Judge, Tell, Telling, Under
from modelgraft_plugins.benching.results import Cell, Method, Reason, Surroundings
from modelgraft_plugins.benching.starting import start_both
from modelgraft_plugins.benching.surroundings import Watch, busy, free_memory, surroundings

TIMEOUT_S = 600.0  # of anything that a cell is asked: an export of a large model takes minutes
PART_OF_MEMORY = 0.5  # that open cells may take of what is free
RECORDS = "records.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a bench found.

    method    with what stopped it
    baseline  the id of the first measured cell, "" for none
    """

    cells: Sequence[Cell]
    method: Method
    surroundings: Surroundings
    baseline: str = ""
    warnings: Sequence[str] = ()


def measure(
    cells: Sequence[WantedCell],
    records: Sequence[Mapping[str, Any]],
    method: Method,
    *,
    tell: Tell,
    done: Done,
    kept: Mapping[str, Cell] | None = None,
    judge: Judge | None = None,
    timeout_s: float = TIMEOUT_S,
    start: Start = Host,
) -> Measured:
    """Measure cells on records. The first that can be measured is the baseline.

    records  their columns by name: inputs, and whatever else there is; at least one
    method   `seed`, `cold`, the most `warm_ups`, and what ends the rounds: `rounds` (0: as many as the others allow),
             `precision_target`, `budget_s`
    tell     hears what goes on, in a few words: not more often than people read
    done     takes a cell whenever more of it is known, and at last as it stays; one that was stopped is "unfinished"
    kept     by key: cells as an earlier bench of the same left them. Those that it measured stay as they are, those that failed in it
             are tried again, and of the others the samples count, and their starts are not taken again
    judge    scores the answers;  timeout_s  the most that anything asked of a cell may take;  start  makes hosts

    Raises InputError for a budget that is too small for one round. That, and Ctrl-C, end all processes; what was measured was
    handed to `done` before.
    """
    from modelgraft_plugins.benching.held import write_records

    with tempfile.TemporaryDirectory(prefix="modelgraft-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        write_records(records, folder / RECORDS)
        most = int(free_memory() * PART_OF_MEMORY)
        sharing = Sharing.of(cells) if method.share_upstream else Sharing()
        hosts = Hosts(folder / RECORDS, timeout_s=timeout_s, most_bytes=most, start=start, shared=sharing.by_cell)
        bench = Bench(folder, len(records), method, hosts, Telling(tell), done, judge)
        bench.under = [sharing.noted(one) for one in _taken_up(cells, kept or {})]
        try:
            with hosts:
                found = _measured(bench, partial(_start_fresh, bench, timeout_s=timeout_s, start=start))
        except BaseException:  # a stop, or a budget that is too small: nothing that was measured is lost, and no process is left
            for one in bench.alive():
                done(one.unfinished())
            raise
        return replace(found, warnings=(*found.warnings, *sharing.warnings()))


@dataclass(frozen=True, slots=True)
class Sharing:
    """What cells are given instead of computing it.

    by_cell  as a host takes it;  why  by graph, why its cells share nothing
    """

    by_cell: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    why: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, cells: Sequence[WantedCell]) -> Sharing:
        """Find it, graph by graph, without loading anything."""
        from modelgraft_plugins.benching.upstream import upstream_of

        by_cell, why = dict[str, Mapping[str, Any]](), dict[str, str]()
        for graph in dict.fromkeys(cell.graph for cell in cells):
            mine = [cell for cell in cells if cell.graph == graph]
            found = upstream_of(mine)
            if not found.nodes:
                why[graph] = found.why
                continue
            facts = {name: value for name, value in opening_of(mine[0]).items() if name in ("graph", "params", "allow", "opening")}
            shared = {"nodes": list(found.nodes), "ports": list(found.ports), "facts": facts}
            by_cell |= {cell.id: shared for cell in mine}
        return cls(by_cell, why)

    def noted(self, one: Under) -> Under:
        """The cell, with the names of the nodes that it is given."""
        if one.id in self.by_cell:
            one.found = replace(one.found, shared=tuple(self.by_cell[one.id]["nodes"]))
        return one

    def warnings(self) -> list[str]:
        """What is shared by nobody, and why."""
        return [f"{graph}: no node is shared: {why}" for graph, why in self.why.items()]


def _taken_up(cells: Sequence[WantedCell], kept: Mapping[str, Cell]) -> list[Under]:
    """The cells, to begin or to go on with. While others are measured the first is too: their ratios are taken within rounds."""
    found = [Under.of(wanted, kept.get(wanted.key)) for wanted in cells]
    if not all(one.is_done for one in found):
        found[0].is_done = False
    return found


def _measured(bench: Bench, start_fresh: Any) -> Measured:
    """All phases. start_fresh: takes a cell that is started in fresh processes."""
    before, method = surroundings(), bench.method
    bench.each("loading and answering", partial(answer, bench))
    for time in range(method.cold):
        lacking = [one for one in bench.alive() if one.found.start.cold is None and "start" not in one.found.untaken]
        bench.each(
            "starting cold and then warm in fresh processes, exports and compiled code made anew",
            start_fresh,
            shuffled(lacking, seed=method.seed, what=f"start {time}"),
        )
    alive = bench.alive()
    walk = walk_of(bench.count, {one.id: one.failed.keys() for one in alive}, {one.id: one.wanted.batch for one in alive})
    bench.each("warming up", lambda one: warm_up(bench, one, walk))
    watch = Watch(before)
    run_rounds(bench, walk, watch)
    return _finished(bench, walk, watch.told())


def _start_fresh(bench: Bench, one: Under, *, timeout_s: float, start: Start) -> None:
    good = [record for record in range(bench.count) if record not in one.failed][: one.wanted.batch]
    try:
        start_both(one.wanted, good, one.started, records=bench.folder / RECORDS, timeout_s=timeout_s, start=start)
    except CellFailed as failure:  # where something that was derived before lacks, such as an export that takes too long
        one.found = replace(one.found, untaken={**one.found.untaken, "start": failure.reasons[0].text})


def _finished(bench: Bench, walk: Walk, around: Surroundings) -> Measured:
    """The figures of every cell, handed over for the last time."""
    seed, is_busy = bench.method.seed, busy(around)
    cells = [_figured(bench, one, seed) for one in bench.under]
    baseline = next((cell for cell in cells if cell.state == "measured"), None)
    if baseline is not None:
        done = {one.id for one in bench.under if one.is_done}
        cells = [cell if cell.id in done or cell.state != "measured" else _compared(cell, baseline, walk, seed, is_busy) for cell in cells]
    for cell in cells:
        bench.done(cell)
    warnings = [is_busy] if is_busy else []
    if bench.first is not None and baseline is not None and bench.first.reasons:
        warnings.append(f"answers are compared with those of {bench.first.id}, which failed later; times with {baseline.id}")
    return Measured(
        cells=cells,
        method=replace(bench.method, stopped_by=bench.stopped_by),
        surroundings=around,
        baseline=baseline.id if baseline is not None else "",
        warnings=warnings,
    )


def _figured(bench: Bench, one: Under, seed: int) -> Cell:
    found = one.found if one.is_done else one.unfinished()
    if one.is_done or one.reasons:
        return found
    untaken = dict(found.untaken)
    if not bench.method.cold and found.start.cold is None:
        untaken |= dict.fromkeys(("start", "memory.resident", "memory.device"), "no fresh process was started: --cold 0")
    if not found.samples:
        return replace(found, state="failed", reasons=(Reason(code="no-samples", text="it failed in every round"),), untaken=untaken)
    return with_figures(replace(found, state="measured", untaken=untaken), seed=seed)


def _compared(cell: Cell, baseline: Cell, walk: Walk, seed: int, is_busy: str) -> Cell:
    if cell.id in walk.apart or (baseline.id in walk.apart and cell.id != baseline.id):
        why = "more records fail than succeed in it, so that it ran others than the baseline"
        return replace(cell, untaken={**cell.untaken, "ratio": why})
    return replace(cell, ratio=ratio_to(baseline, cell, seed=seed, warning=is_busy))
