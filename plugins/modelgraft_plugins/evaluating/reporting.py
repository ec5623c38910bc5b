"""A report as a table, and as the JSON document that lies beside the predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from modelgraft_plugins.evaluating.suites import Answer, Report, Score

if TYPE_CHECKING:
    from modelgraft.commands import CliSession

VERSION = 1  # of report.json: goes up when a key changes its name or its meaning
MOST_TOLD = 20  # failed records that the table lists; all of them stand in report.json


def document(facts: Mapping[str, Any], report: Report, answers: Sequence[Answer]) -> dict[str, Any]:
    """The whole report as plain values.

    facts  what was run: suite, graph, settings, data
    """
    failed = [{"id": answer.id, "error": answer.error} for answer in answers if answer.error]
    return {
        "version": VERSION,
        **facts,
        "records": len(answers),
        "failed": failed,
        "counts": dict(report.counts),
        "scores": [asdict(score) for score in report.scores],
        "notes": list(report.notes),
    }


def say(session: CliSession, report: Report, answers: Sequence[Answer], *, told_before: bool) -> None:
    """Answer with the table; failed records are counted and listed beside it.

    told_before  the run has listed them as they failed
    """
    screen = session.screen
    rows = [_row(score) for score in report.scores]
    screen.table(("score", "of", "value", "95 % interval", "n"), rows, right=frozenset({2, 4}))
    failed = [answer for answer in answers if answer.error]
    counts = [f"{len(answers)} records", f"{len(failed)} failed", *(f"{count} {name}" for name, count in report.counts.items())]
    screen.note("; ".join(counts))
    for answer in [] if told_before else failed[:MOST_TOLD]:
        screen.note(f"failed: {answer.error}")
    for note in report.notes:
        screen.note(note)


def _row(score: Score) -> tuple[str, ...]:
    interval = "" if score.low is None or score.high is None else f"{shown(score.low, score.unit)} to {shown(score.high, score.unit)}"
    return score.metric, score.group or "all", shown(score.value, score.unit), interval, str(score.n)


def shown(value: float, unit: str) -> str:
    """A figure as a person reads it."""
    return f"{100 * value:.1f} %" if unit == "%" else f"{value:.4g}{f' {unit}' if unit else ''}"
