"""Warm-up and rounds: every cell runs the same records once in each, in an order that is shuffled anew, until it is enough."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

from modelgraft.commands import in_seconds
from modelgraft_plugins.benching.hosts import CellFailed
from modelgraft_plugins.benching.measuring_figures import ratios_of, spread
from modelgraft_plugins.benching.measuring_records import Walk
from modelgraft_plugins.benching.measuring_state import Bench, Under
from modelgraft_plugins.benching.results import Method, RecordFailure, Sample, Spread
from modelgraft_plugins.benching.surroundings import Watch

MOST_ROUNDS = 1000  # where a precision or a budget ends them, and nobody says how many
WINDOW, STEADY = 3, 0.05  # of a warm-up: medians of three runs, within 5 % of each other
WARM_UP_S = 5.0  # after which a cell is warmed up no longer: what is slow varies little
SHORT_S = 0.02  # runs below it are led in by one of records before: else what others left in the processor's caches is timed
STRIKES = 3  # rounds in which a cell may fail before it is left out
KEEP_S = 10.0  # between two times that cells are handed over while rounds go on


def shuffled(cells: Sequence[Under], *, seed: int, what: str) -> list[Under]:
    """The cells in an order that follows from the seed of the bench and what it is for, such as "round 3"."""
    found = list(cells)
    random.Random(f"{seed} {what}").shuffle(found)  # noqa: S311 an order, not a secret
    return found


def warm_up(bench: Bench, one: Under, walk: Walk) -> None:
    """Run a cell untimed until its running median is steady; the runs that answered count as well."""
    from modelgraft_plugins import intervals

    began = time.monotonic()
    while not intervals.is_steady(one.walls, window=WINDOW, tolerance=STEADY):
        if one.warm_ups >= bench.method.warm_ups or (one.warm_ups and time.monotonic() - began > WARM_UP_S):
            return
        one.warm_ups += 1
        one.walls.append(bench.ask_run(one, walk.at(one.id, -one.warm_ups, one.wanted.batch))["wall"])


def run_rounds(bench: Bench, walk: Walk, watch: Watch) -> None:
    """Run rounds until one of what ends them does. Raises InputError for a budget that is too small for one."""
    begun_with = bench.rounds = 1 + max((sample.round for one in bench.under for sample in one.samples), default=-1)
    most = _most(bench.method)
    handed, round_s = time.monotonic(), sum(one.typical_s for one in bench.alive())
    while not _is_over(bench, begun_with, round_s):
        began = time.monotonic()
        order = shuffled(_due(bench, most), seed=bench.method.seed, what=f"round {bench.rounds}")
        bench.tell(f"round {min(one.tried for one in order) + 1} of at most {most}: {len(order)} cells")
        for one in order:
            _sample(bench, one, walk)
        bench.rounds += 1
        watch.look()
        round_s = time.monotonic() - began
        if time.monotonic() - handed > KEEP_S:
            handed = time.monotonic()
            for one in bench.alive():
                bench.done(one.unfinished())


def _most(method: Method) -> int:
    return method.rounds or MOST_ROUNDS


def _due(bench: Bench, most: int) -> list[Under]:
    """The cells of the next round: those that have not run in so many, beside the first, to which they are compared; or none."""
    alive = bench.alive()
    due = [one for one in alive if one.tried < most]
    return due if not due or alive[0] in due else [alive[0], *due]


def _is_over(bench: Bench, begun_with: int, round_s: float) -> bool:
    """Whether there are no more rounds, and why.

    round_s  how long the next one will take
    """
    method = bench.method
    if not bench.alive():
        bench.stopped_by = "nothing was left to measure"
    elif not _due(bench, _most(method)):
        bench.stopped_by = f"{_most(method)} rounds"
    elif method.budget_s is not None and bench.spent_s + round_s > method.budget_s:
        if bench.rounds == begun_with == 0:
            raise bench.too_small(round_s, "opening, answering and warming up")
        bench.stopped_by = f"the budget of {in_seconds(method.budget_s)}"
    elif method.precision_target is not None and _is_precise(bench, method.precision_target):
        bench.stopped_by = f"the precision of {method.precision_target:.3g}"
    return bool(bench.stopped_by)


def _is_precise(bench: Bench, target: float) -> bool:
    """Whether every ratio is known to the width that was asked for; of a cell alone its time. The first that is not ends the look."""
    first, *others = bench.alive()
    seed = bench.method.seed
    if not others:
        return _is_narrow(spread([sample.wall_s for sample in first.samples], seed=seed), target)
    return all(_is_narrow(spread(ratios_of(first.samples, one.samples), seed=seed), target) for one in others)


def _is_narrow(found: Spread | None, target: float) -> bool:
    return found is not None and found.low is not None and found.high is not None and found.high - found.low <= target * found.value


def _sample(bench: Bench, one: Under, walk: Walk) -> None:
    """Run a cell once by the clock. One that fails has no sample in this round; after some of them it is left out."""
    records = walk.at(one.id, bench.rounds, one.wanted.batch)
    one.tried += 1
    try:
        if one.typical_s < SHORT_S or not bench.hosts.is_open(one.wanted):
            bench.ask_run(one, walk.at(one.id, bench.rounds - 1, one.wanted.batch))
        found = bench.ask_run(one, records)
    except CellFailed as failure:
        one.strikes += 1
        why = failure.reasons[0]
        one.failed.setdefault(
            records[0], RecordFailure(record=records[0], place=why.place, text=f"in round {bench.rounds + 1}: {why.text}")
        )
        if failure.is_lost or one.strikes == STRIKES:
            bench.fail(one, failure.reasons)
        return
    one.samples.append(_as_sample(one, bench.rounds, records, found))
    one.account.add(found["wall"], found["spans"])


def _as_sample(one: Under, number: int, records: Sequence[int], found: Mapping[str, Any]) -> Sample:
    first, done = found.get("first"), found.get("done")
    counts = [one.tokens[record] for record in records if record in one.tokens]
    tokens = sum(counts) if counts else found.get("pieces")
    steps = max(counts, default=found.get("pieces") or 0) - 1
    per_token = (done - first) / steps if first is not None and done is not None and steps > 0 else None
    return Sample(
        round=number,
        records=len(records),
        wall_s=found["wall"],
        cpu_s=found["cpu"],
        first_token_s=first,
        per_token_s=per_token,
        tokens=tokens,
    )
