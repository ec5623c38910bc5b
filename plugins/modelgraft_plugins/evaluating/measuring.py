"""Scores of suites by metrics: over all answers and over groups of them, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import modelgraft as mg
from modelgraft_plugins import scoring
from modelgraft_plugins.evaluating.suites import Answer, Score

MOST_GROUPS = 30  # that a report has scores of


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A figure that a suite reports.

    metric  by its name, with fields;  called  what the report calls it;  unit  as of a Score
    """

    metric: str
    called: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    unit: str = ""


def rehearse(*figures: Wanted) -> None:
    """Try the metrics of a suite, before the graph runs. Raises InputError for a package that is missing."""
    registry = mg.Graph("metric").registry
    for wanted in figures:
        scoring.rehearse(scoring.metric_of(registry, wanted.metric, wanted.fields))


def scored_by(wanted: Wanted, answers: Sequence[Answer], *, output: str, references: Callable[[Answer], Any]) -> scoring.Scored | None:
    """A metric over the answers; those without one are left out. None when there is none, or nothing is known to be right.

    output  of the answers that it looks at;  references  gives what is right for an answer
    """
    if not any(answer.outputs for answer in answers):
        return None
    measure = scoring.metric_of(mg.Graph("metric").registry, wanted.metric, wanted.fields)
    return scoring.score(measure, [answer.outputs.get(output) for answer in answers], [references(answer) for answer in answers])


def score_of(wanted: Wanted, scored: scoring.Scored, *, clusters: Sequence[Any] | None = None, group: str = "") -> Score:
    """A figure as the report has it.

    clusters  by answer: what is drawn together
    """
    found = scoring.interval_of(scored, clusters=clusters)
    better = scored.measure.config.better
    return Score(
        metric=wanted.called, group=group, value=found.value, low=found.low, high=found.high, n=found.n, unit=wanted.unit, better=better
    )


def by_group(
    wanted: Wanted, scored: scoring.Scored, answers: Sequence[Answer], group_of: Callable[[Answer], str], clusters: Sequence[Any] | None
) -> Iterable[Score]:
    """The same figure over each group of answers, by name; "" is no group."""
    places: dict[str, list[int]] = {}
    for place, index in enumerate(scored.kept):
        places.setdefault(group_of(answers[index]), []).append(place)
    for group in sorted(places.keys() - {""})[:MOST_GROUPS]:
        part = replace(scored, rows=scored.rows[places[group]], kept=[scored.kept[place] for place in places[group]])
        yield score_of(wanted, part, clusters=clusters, group=group)
