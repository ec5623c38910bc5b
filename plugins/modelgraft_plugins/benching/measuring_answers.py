"""The untimed pass: what cells answer to every record, which records fail, what moves on the way, and how alike the answers are."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from modelgraft_plugins.benching.hosts import CellFailed
from modelgraft_plugins.benching.measuring_state import Bench, Under
from modelgraft_plugins.benching.outcomes import Answers, likeness
from modelgraft_plugins.benching.results import Quality, Reason, RecordFailure

TRIES = 3  # batches at the beginning that may hold a record that fails, until a run is looked at
HOPELESS = 8  # batches at the beginning that fail whole, before a cell is left out
OF_RECORDS = ("NodeError", "NodeTimeout", "InputError")  # errors that may be those of a record; others are of the cell


def answer(bench: Bench, one: Under) -> None:
    """Run every record untimed, and compare what is answered with the first cell."""
    _look(bench, one)
    folder, size = bench.answers_of(one), one.wanted.batch
    for start in range(0, bench.count, size):
        batch = list(range(start, min(start + size, bench.count)))
        found = bench.hosts.ask(one.wanted, "answer", records=batch, folder=str(folder))
        one.failed |= {record: RecordFailure(record=record, place=place, text=text) for record, place, text in found["failed"]}
        one.tokens |= {int(record): count for record, count in found["tokens"].items()}
        if len(batch) == size and not found["failed"]:
            one.walls.append(found["wall"])
        done = start + len(batch)
        if len(one.failed) == done and (done == bench.count or done >= HOPELESS * size):
            told = one.failed[0]
            text = f"all of the first {done} records fail in it, the first with: {told.text}" if done > 1 else told.text
            raise CellFailed([Reason(code="records-failed", text=text, place=told.place)])
    _compare(bench, one, Answers(folder))
    if one is not bench.first:
        shutil.rmtree(folder, ignore_errors=True)


def _look(bench: Bench, one: Under) -> None:
    """Look at a run of the first records that do not fail; of a cell whose first ones all do, nothing is seen."""
    size = one.wanted.batch
    for start in range(0, min(bench.count, TRIES * size), size):
        try:
            found = bench.hosts.ask(one.wanted, "look", records=list(range(start, min(start + size, bench.count))))
        except CellFailed as failure:
            if failure.is_lost or failure.reasons[0].code not in OF_RECORDS:
                raise
            continue
        _note(bench, one, found)
        return


def _note(bench: Bench, one: Under, found: Mapping[str, Any]) -> None:
    one.writes, one.media = found["writes"], found["media"]
    weights = sum(found["held"].values())
    bench.hosts.weighs(one.wanted, weights)
    told = [text for text in found["warnings"] if text not in one.found.warnings]
    one.found = replace(
        one.found,
        memory=replace(one.found.memory, measured=weights),
        edges=found["edges"],
        cached=dict.fromkeys(found["cached"], 1),
        warnings=(*one.found.warnings, *told),
    )


def _compare(bench: Bench, one: Under, answers: Answers) -> None:
    """Hold the answers of a cell beside those of the first, and have them judged."""
    first = bench.first = bench.first or one
    alike = likeness(Answers(bench.answers_of(first)), answers)
    quality: Sequence[Quality] = ()
    untaken = {f"parity.{output}": text for output, text in alike.unlike.items()}
    if alike.agreement is None:
        untaken["agreement"] = "its outputs are numbers alone" if alike.n else "no record succeeded in both cells"
    if bench.judge is not None:
        quality, why = bench.judge(one.id, answers, one.failed, media=one.media)
        untaken |= why
    one.found = replace(
        one.found, parity=alike.parity, agreement=alike.agreement, quality=tuple(quality), untaken={**one.found.untaken, **untaken}
    )
