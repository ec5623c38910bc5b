"""Metrics in a bench: read from their words, held against graphs and data before anything runs, and taken of what cells answer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelgraft.commands import for_command
from modelgraft.plugin import GraphError, contained, digest_of, home_read, said
from modelgraft_plugins import scoring
from modelgraft_plugins.benching.results import Quality, Spread

if TYPE_CHECKING:
    from modelgraft.commands import Registry
    from modelgraft.plugin import Port
    from modelgraft_plugins.benching.data import Records


@dataclass(slots=True)
class Judging:
    """Scores what cells answer; the first cell that is scored by a metric is what the others differ from.

    measures  by cell: the metrics, each with the output and the column that it takes
    first     by metric: what the first cell scored
    """

    measures: Mapping[str, Sequence[scoring.Measure]]
    records: Records
    seed: int
    first: dict[str, scoring.Scored] = field(default_factory=dict)

    def __call__(
        self, cell: str, answers: Any, failed: Mapping[int, object], *, media: Sequence[str]
    ) -> tuple[list[Quality], dict[str, str]]:
        """The quality of a cell; and by metric that raised something, what that was: one metric is one figure of many.

        answers  what it answered: `read()` gives the number of each record, and its outputs by name
        failed   the records that it has no answer to;  media  the inputs by which records may belong together
        """
        measures = self.measures[cell]
        if not measures:
            return [], {}
        outputs: list[Mapping[str, Any] | None] = [None] * len(self.records.columns)
        for record, found in answers.read():
            outputs[record] = None if record in failed else found
        clusters = scoring.clusters_of(by_content(self.records.columns, media), media)
        quality, untaken = list[Quality](), dict[str, str]()
        for measure in measures:
            try:
                with contained():
                    quality.append(self._quality(measure, outputs, clusters))
            except Exception as error:  # noqa: BLE001 a metric is code of a plugin
                untaken[measure.name] = for_command(said(error))
        return quality, untaken

    def _quality(self, measure: scoring.Measure, outputs: Sequence[Mapping[str, Any] | None], clusters: Sequence[Any] | None) -> Quality:
        predictions = [None if found is None else _plain(found.get(measure.prediction or "")) for found in outputs]
        references = [record.get(measure.references or "") for record in self.records.columns]
        scored = scoring.score(measure, predictions, references)
        first = self.first.setdefault(measure.word, scored)
        own = scoring.interval_of(scored, clusters=clusters, seed=self.seed)
        apart = None if first is scored else scoring.difference_of(scored, first, clusters=clusters, seed=self.seed)
        return Quality(
            metric=measure.name,
            output=measure.prediction or "",
            better=measure.config.better,
            value=own.value,
            low=own.low,
            high=own.high,
            difference=None if apart is None else Spread(value=apart.value, low=apart.low, high=apart.high, n=apart.n),
            n=own.n,
            clusters=own.draws if clusters is not None else None,
            unit=measure.config.unit,
        )


def _plain(value: Any) -> Any:
    """An array as lists, which a metric reads as what a run gives: a tensor with the axis of one record."""
    return value.tolist() if hasattr(value, "tolist") else value


def by_content(columns: Sequence[Mapping[str, Any]], media: Sequence[str]) -> list[dict[str, Any]]:
    """The media of each record, by what is in their files, so that two names of one picture are one picture."""
    digests: dict[str, str] = {}

    def digest(value: Any) -> Any:
        if isinstance(value, bytes | bytearray):
            return hashlib.sha256(value).hexdigest()
        if isinstance(value, str | Path) and str(value) not in digests:
            path = home_read(value)
            digests[str(value)] = digest_of(path) if path.is_file() else str(value)
        return digests.get(str(value), value)

    return [{name: digest(record[name]) for name in media if record.get(name) is not None} for record in columns]


def measures_for(
    words: Sequence[str], ports: Mapping[str, Mapping[str, Port]], records: Records, registry: Registry
) -> dict[str, list[scoring.Measure]]:
    """The metrics of each cell, with what they look at.

    ports  by cell: what it gives, by name

    Raises InputError for a metric that is not there, GraphError with every misfit: references that the data lack, outputs of
    another kind.
    """
    columns = dict.fromkeys(name for record in records.columns for name in record)
    measures = [scoring.metric_named(registry, word) for word in words]
    problems = {}
    found: dict[str, list[scoring.Measure]] = {}
    for cell, given in ports.items():
        for measure in measures:
            try:
                found.setdefault(cell, []).append(scoring.joined(measure, given, columns))
            except GraphError as error:
                problems.update({problem.found: problem for problem in error.noted})
    if problems:
        raise GraphError(problems.values())
    for measure in {(one.word, one.references): one for those in found.values() for one in those}.values():
        scoring.rehearse(measure, [record.get(measure.references or "") for record in records.columns])
    return {cell: found.get(cell, []) for cell in ports}


def ports_wanted(words: Sequence[str], registry: Registry) -> list[str]:
    """The ports beside the outputs of a graph that metrics look at, as "node.port"."""
    named = [scoring.metric_named(registry, word).prediction for word in words]
    return [name for name in named if name is not None and "." in name]
