"""Metrics of an evaluation: what is looked at is gathered over all records, because many figures are of all of them together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from modelgraft.commands import Batch, Measured, Resolved
from modelgraft.plugin import SolvedGraph, said
from modelgraft_plugins import scoring

if TYPE_CHECKING:
    from modelgraft_plugins.training.processes import Processes
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
        self._seen: dict[int, dict[str, Sequence[Any]]] = {}  # by the place of a batch among all

    def add(self, place: int, found: Mapping[str, Any], numbers: Sequence[int]) -> None:
        """Take what the ports gave for the records of these numbers, a batch that stands at a place among all."""
        seen = self._seen[place] = {}
        for one, _ in self.measures.values():
            seen[f"{one.name}.prediction"] = _each(found[str(one.prediction)], len(numbers))
            if isinstance(one.references, str):
                seen[f"{one.name}.references"] = [self.rows.facts(number).get(one.references) for number in numbers]
            elif one.references is not None:
                seen[f"{one.name}.references"] = _each(found[str(one.references)], len(numbers))

    def of_all(self, processes: Processes) -> Looks:
        """With what the other processes have seen."""
        if self.measures:
            self._seen = processes.merged(self._seen)
        return self

    def _listed(self, key: str) -> list[Any] | None:
        there = [self._seen[place][key] for place in sorted(self._seen) if key in self._seen[place]]
        return [value for values in there for value in values] if there else None

    def figures(self, tell: Callable[[str], None]) -> dict[str, float]:
        """The figure of each metric over all records, by its name. One that cannot be taken is told and left out: it ends no training."""
        found: dict[str, float] = {}
        for name, (_, measure) in self.measures.items() if self._seen else ():
            try:
                found[name] = scoring.score(measure, self._listed(f"{name}.prediction") or [], self._listed(f"{name}.references")).value
            except Exception as error:  # noqa: BLE001 a metric may raise anything
                tell(f"the metric {name} gives no number: {said(error)}")
        return found


def _each(value: Any, count: int) -> list[Any]:
    """A value on a wire by record, a tensor with an axis of one record; what went another way is absent."""
    found = Batch.of(value.detach().cpu() if isinstance(value, torch.Tensor) else value).listed(count)
    return [one[None] if isinstance(one, torch.Tensor) else one for one in found]
