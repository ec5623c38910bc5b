"""Metrics of an evaluation: what is looked at is gathered over all records, because many figures are of all of them together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from modelgraft.commands import Batch, Measured, Resolved
from modelgraft.plugin import SolvedGraph, said
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

    def figures(self, tell: Callable[[str], None]) -> dict[str, float]:
        """The figure of each metric over all records, by its name. One that cannot be taken is told and left out: it ends no training."""
        found: dict[str, float] = {}
        for name, (_, measure) in self.measures.items() if self._seen else ():
            try:
                found[name] = scoring.score(measure, self._seen[f"{name}.prediction"], self._seen.get(f"{name}.references")).value
            except Exception as error:  # noqa: BLE001 a metric may raise anything
                tell(f"the metric {name} gives no number: {said(error)}")
        return found


def _each(value: Any, count: int) -> list[Any]:
    """A value on a wire by record, a tensor with an axis of one record; what went another way is absent."""
    found = Batch.of(value.detach().cpu() if isinstance(value, torch.Tensor) else value).listed(count)
    return [one[None] if isinstance(one, torch.Tensor) else one for one in found]
