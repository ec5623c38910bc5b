"""Metrics of an evaluation: what is looked at is gathered over all records, because many figures are of all of them together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from modelgraft.commands import Batch, Measured, Resolved
from modelgraft.plugin import SolvedGraph
from modelgraft_plugins import scoring

if TYPE_CHECKING:
    from modelgraft_plugins.training.rows import Rows

Measures = Mapping[str, tuple[Measured, scoring.Measure]]


def measures_of(resolved: Resolved, solved: SolvedGraph) -> Measures:
    """The metrics of a stage, tried once. Raises InputError for a package that is missing."""
    found = {name: (one, scoring.metric_named(solved.graph.registry, one.word)) for name, one in resolved.metrics.items()}
    for _, measure in found.values():
        scoring.rehearse(measure)
    return found


class Looks:
    """What metrics look at, and what they compare it with, record by record. Memory grows with the records of an evaluation."""

    def __init__(self, measures: Measures, rows: Rows) -> None:
        self.measures, self.rows = measures, rows
        self._seen: dict[str, list[Any]] = {}

    def add(self, found: Mapping[str, Any], numbers: Sequence[int]) -> None:
        """Take what the ports gave for the records of these numbers."""
        for one, _ in self.measures.values():
            self._more(f"{one.name}.prediction", _each(found[str(one.prediction)], len(numbers)))
            if isinstance(one.references, str):
                self._more(f"{one.name}.references", [self.rows.facts(number).get(one.references) for number in numbers])
            elif one.references is not None:
                self._more(f"{one.name}.references", _each(found[str(one.references)], len(numbers)))

    def _more(self, key: str, values: Sequence[Any]) -> None:
        self._seen.setdefault(key, []).extend(values)

    def figures(self) -> dict[str, float]:
        """The figure of each metric over all records, by its name. Raises what `scoring.score` raises."""
        seen = self._seen
        return {
            name: scoring.score(measure, seen[f"{name}.prediction"], seen.get(f"{name}.references")).value
            for name, (_, measure) in self.measures.items()
            if seen
        }


def _each(value: Any, count: int) -> list[Any]:
    """A value on a wire by record, a tensor with an axis of one record; what went another way is absent."""
    found = Batch.of(value.detach().cpu() if isinstance(value, torch.Tensor) else value).listed(count)
    return [one[None] if isinstance(one, torch.Tensor) else one for one in found]
