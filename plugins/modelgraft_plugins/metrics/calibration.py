"""Expected calibration error: are the probabilities of a classifier those with which it is right?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from modelgraft.plugin import LoadContext
    from modelgraft_plugins.metrics import Calibration
    from modelgraft_plugins.metrics.answers import Rows


def calibration(_config: Calibration, _context: LoadContext) -> Callable[[Any, Sequence[Any]], Rows]:
    """Row: the probability of the likeliest class, and 1 where it is the right one."""

    def score(probabilities: Any, references: Sequence[Any]) -> Rows:
        rows = []
        for index, (one, given) in enumerate(zip(probabilities.double().tolist(), references, strict=True)):
            wanted = given[0] if isinstance(given, list | tuple) and len(given) == 1 else given
            if not isinstance(wanted, int) or isinstance(wanted, bool) or not 0 <= wanted < len(one):
                raise ValueError(
                    f"the reference of record {index} is {given!r}; wanted: the number of the right class, from 0 to {len(one) - 1}"
                )
            rows.append([max(one), float(one.index(max(one)) == wanted)])
        return rows

    return score


def error_of(rows: NDArray[numpy.float64], *, bins: int, equal: str) -> float:
    """The mean gap between probability and accuracy of bins, weighed by how many records they hold."""
    import numpy

    ordered = rows[numpy.argsort(rows[:, 0], kind="stable")]
    if equal == "records":
        parts = numpy.array_split(ordered, min(bins, len(ordered)))
    else:
        edges = numpy.linspace(0, 1, bins + 1)[1:-1]
        parts = numpy.split(ordered, numpy.searchsorted(ordered[:, 0], edges, side="left"))
    gaps = sum(abs(part[:, 0].sum() - part[:, 1].sum()) for part in parts if len(part))  # each weighed by its size already
    return float(gaps / len(rows))
