"""What a metric promises beside its ports: rows of numbers that do not depend on the order of the records, and a figure made of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from modelgraft.metric import Metric, misfit_of
from modelgraft.records.values import describe

if TYPE_CHECKING:
    from modelgraft.testing.conformance import Trial

NEAR = 1e-9  # of figures that should be equal: sums in another order differ in their last digits


def metric_law(trial: Trial, values: Sequence[Any], outputs: dict[str, Any]) -> Iterator[str]:
    """What is wrong with a metric that was called with a batch of two records."""
    if wrong := misfit_of(trial.node.component.ports(trial.node.config)):
        yield wrong
        return
    rows = outputs["rows"]
    if wrong := next((text for row in rows if (text := _complaint(row, rows[0]))), ""):
        yield f"'rows' holds {wrong}, wanted a list of numbers for each record, all of the same length"
        return
    turned = trial(*(None if value is None else _reversed(value) for value in values))["rows"]
    if not _near(turned[::-1], rows):
        yield f"'rows' of records in another order are {turned[::-1]}, wanted the same as in the first: {rows}"
    yield from _summary_law(trial.node.config, rows)


def _reversed(value: Any) -> Any:
    """The records of a batch from the last to the first."""
    return value[::-1] if isinstance(value, list) else value.flip(0)


def _complaint(row: Any, first: Any) -> str:
    if not isinstance(row, list | tuple) or not row or not all(isinstance(number, int | float) for number in row):
        return describe(row)
    if len(row) != len(first):
        return f"lists of {len(first)} and of {len(row)}"
    return "numbers that are not finite" if any(abs(number) == float("inf") or number != number for number in row) else ""  # noqa: PLR0124 NaN


def _summary_law(config: Any, rows: list[list[float]]) -> Iterator[str]:
    import numpy

    assert isinstance(config, Metric), "a component of this kind is declared on one"
    table = numpy.asarray(rows, dtype=numpy.float64)
    found = config.summary(table)
    if not isinstance(found, int | float) or not numpy.isfinite(found):
        yield f"summary gave {describe(found)}, wanted a number"
    elif not _near([config.summary(table[::-1])], [found]):
        yield "summary gives another figure when the rows stand in another order"
    elif config.of_sums and not _near([config.summary(table.sum(axis=0, keepdims=True))], [found]):
        yield "summary gives another figure of the sums of the rows, and its class says of_sums"


def _near(one: Any, other: Any) -> bool:
    import numpy

    return bool(numpy.allclose(numpy.asarray(one, dtype=float), numpy.asarray(other, dtype=float), rtol=NEAR, atol=NEAR))
