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
    if equal == "records":  # the first bins hold one more where they cannot all hold as many
        count = min(bins, len(ordered))
        size, more = divmod(len(ordered), count)
        which = numpy.repeat(numpy.arange(count), [size + (place < more) for place in range(count)])
    else:
        which = numpy.searchsorted(numpy.linspace(0, 1, bins + 1)[1:-1], ordered[:, 0], side="left")
    gaps = numpy.bincount(which, weights=ordered[:, 0] - ordered[:, 1])  # of sums: each weighed by its size
    return float(numpy.abs(gaps).sum() / len(rows))
