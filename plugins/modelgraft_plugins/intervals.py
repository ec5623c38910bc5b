"""How sure a figure is: intervals by bootstrap, ratios within rounds, tail percentiles that the number of samples allows.

Everything is drawn from a seed, so that the same figures give the same intervals. Only numpy is used, and imported when it is.
A bootstrap interval is that of percentiles (Efron 1979): 2.5 % of the resampled figures lie below `low`, 2.5 % above `high`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy
    from numpy.typing import ArrayLike, NDArray

    Rows = NDArray[numpy.float64]  # [records statistics]

RESAMPLES = 10_000  # then the ends of an interval move by about 1 % of its width from seed to seed
OF_CALLS = 2_000  # where each is a call of the metric; then they move by about 3 %
LEVEL = 0.95
FEWEST = 6  # independent draws: of fewer, even from the least to the most holds a median with less than 95 % (1 - 2 / 2**n)
CONFIDENCE = 0.99  # of a percentile, as MLPerf's load generator has it
PERCENTILES = (50, 90, 99)
AT_ONCE = 1 << 22  # numbers held by a part of the resamples

Verdict = Literal["faster", "slower", "no difference seen"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A figure and its 95 % interval.

    low, high  None where there are fewer than FEWEST independent draws
    n          how many samples it is made of;  draws  how many of them are independent: clusters, or again the samples
    """

    value: float
    low: float | None
    high: float | None
    n: int
    draws: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RatioInterval(Interval):
    """A time over that of a baseline: below 1 is faster."""

    verdict: Verdict


def ratio_of_rounds(cell: Sequence[float], baseline: Sequence[float], *, resamples: int = RESAMPLES, seed: int = 0) -> RatioInterval:
    """Compare two times that were taken side by side: the median of the ratios within rounds, whatever the rounds had in common.

    cell, baseline  float[rounds] each: one time a round, in the order of the rounds, all above 0

    The interval is made by drawing rounds. Where it holds 1, or there is none, no difference was seen.
    """
    import numpy

    ratios = numpy.asarray(cell, dtype=float) / numpy.asarray(baseline, dtype=float)
    count = len(ratios)
    low = high = None
    if count >= FEWEST:
        picks = numpy.random.default_rng(seed).integers(count, size=(resamples, count))
        low, high = _ends(numpy.median(ratios[picks], axis=1))
    verdict: Verdict = "no difference seen"
    if low is not None and high is not None and not low <= 1 <= high:
        verdict = "faster" if high < 1 else "slower"
    return RatioInterval(value=float(numpy.median(ratios)), low=low, high=high, n=count, draws=count, verdict=verdict)


def bootstrap(
    rows: ArrayLike,
    summary: Callable[[Rows], float] | None = None,
    *,
    of_sums: bool = False,
    clusters: Sequence[Any] | None = None,
    resamples: int | None = None,
    seed: int = 0,
) -> Interval:
    """The figure of some records and its interval, made by drawing records, or whole clusters of them.

    rows      float64[records statistics], or float64[records]: what a metric kept of each record
    summary   rows -> the figure; None: the mean of the first column
    of_sums   the figure depends on the sums of the columns alone: `summary` may be called with one row of sums
    clusters  what each record belongs to, such as its picture: records of one cluster are drawn together. None: each is its own
    resamples  None: RESAMPLES, or OF_CALLS where there is a summary
    """
    table = as_rows(rows)
    draws = _Draws.of(len(table), clusters)
    low = high = None
    if draws.count >= FEWEST:
        low, high = _ends(draws.figures([table], summary, of_sums=of_sums, resamples=resamples, seed=seed)[0])
    return Interval(value=_figure(table, summary), low=low, high=high, n=len(table), draws=draws.count)


def paired_difference(
    rows_a: ArrayLike,
    rows_b: ArrayLike,
    summary: Callable[[Rows], float] | None = None,
    *,
    of_sums: bool = False,
    clusters: Sequence[Any] | None = None,
    resamples: int | None = None,
    seed: int = 0,
) -> Interval:
    """The figure of `rows_a` less that of `rows_b`, which are of the same records in the same order: both are drawn alike.

    The other arguments are as in `bootstrap`.
    """
    tables = [as_rows(rows_a), as_rows(rows_b)]
    if len(tables[0]) != len(tables[1]):
        raise ValueError(f"a paired difference is of the same records: one side has {len(tables[0])}, the other {len(tables[1])}")
    draws = _Draws.of(len(tables[0]), clusters)
    low = high = None
    if draws.count >= FEWEST:
        one, other = draws.figures(tables, summary, of_sums=of_sums, resamples=resamples, seed=seed)
        low, high = _ends(one - other)
    value = _figure(tables[0], summary) - _figure(tables[1], summary)
    return Interval(value=value, low=low, high=high, n=len(tables[0]), draws=draws.count)


def as_rows(rows: ArrayLike) -> Rows:
    """A table with a row for each record, also of a plain list of figures. Raises ValueError for what is none, or empty."""
    import numpy

    table = numpy.asarray(rows, dtype=numpy.float64)
    table = table[:, None] if table.ndim == 1 else table
    if table.ndim != 2 or not table.size:
        raise ValueError(f"rows of statistics have the shape [records statistics] with at least one of each, not {list(table.shape)}")
    return table


def _figure(table: Rows, summary: Callable[[Rows], float] | None) -> float:
    return float(table[:, 0].mean() if summary is None else summary(table))


def _ends(figures: NDArray[numpy.float64]) -> tuple[float, float]:
    import numpy

    low, high = numpy.quantile(figures, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


@dataclass(frozen=True, slots=True)
class _Draws:
    """What is drawn: records, or clusters of them.

    of_record  int64[records]: the number of its cluster, from 0
    """

    of_record: NDArray[numpy.int64]
    count: int

    @classmethod
    def of(cls, records: int, clusters: Sequence[Any] | None) -> _Draws:
        import numpy

        if clusters is None:
            return cls(numpy.arange(records), records)
        if len(clusters) != records:
            raise ValueError(f"there are {records} records, and clusters of {len(clusters)}")
        numbers: dict[Any, int] = {}
        of_record = [numbers.setdefault(cluster, len(numbers)) for cluster in clusters]
        return cls(numpy.asarray(of_record), len(numbers))

    def figures(
        self, tables: Sequence[Rows], summary: Callable[[Rows], float] | None, *, of_sums: bool, resamples: int | None, seed: int
    ) -> list[NDArray[numpy.float64]]:
        """The resampled figures of each table: float64[resamples], all drawn alike."""
        import numpy

        count = resamples or (RESAMPLES if summary is None else OF_CALLS)
        picked = list(self._picked(count, seed, width=tables[0].shape[1] if of_sums else 1))
        draw = self._means if summary is None else self._of_sums(summary) if of_sums else self._of_rows(summary)
        return [numpy.concatenate([draw(table, part) for part in picked]) for table in tables]

    def _picked(self, resamples: int, seed: int, *, width: int) -> Iterator[NDArray[numpy.int32]]:
        """Which clusters are drawn: int32[some resamples, clusters], in parts that fit in memory with so many numbers for each."""
        import numpy

        random, part = numpy.random.default_rng(seed), max(1, AT_ONCE // (self.count * width))
        for start in range(0, resamples, part):
            yield random.integers(self.count, size=(min(part, resamples - start), self.count), dtype=numpy.int32)

    def _sums(self, table: Rows) -> Rows:
        """The sums of the columns over each cluster: float64[clusters statistics]."""
        import numpy

        sums = numpy.zeros((self.count, table.shape[1]))
        numpy.add.at(sums, self.of_record, table)
        return sums

    def _means(self, table: Rows, picked: NDArray[numpy.int32]) -> NDArray[numpy.float64]:
        import numpy

        sums, sizes = self._sums(table[:, :1])[:, 0], numpy.bincount(self.of_record, minlength=self.count)
        means: NDArray[numpy.float64] = sums[picked].sum(axis=1) / sizes[picked].sum(axis=1)
        return means

    def _of_sums(self, summary: Callable[[Rows], float]) -> Callable[[Rows, NDArray[numpy.int32]], NDArray[numpy.float64]]:
        import numpy

        def draw(table: Rows, picked: NDArray[numpy.int32]) -> NDArray[numpy.float64]:
            sums = self._sums(table)[picked].sum(axis=1)
            return numpy.fromiter((summary(each[None]) for each in sums), dtype=numpy.float64, count=len(picked))

        return draw

    def _of_rows(self, summary: Callable[[Rows], float]) -> Callable[[Rows, NDArray[numpy.int32]], NDArray[numpy.float64]]:
        import numpy

        def draw(table: Rows, picked: NDArray[numpy.int32]) -> NDArray[numpy.float64]:
            times = (numpy.bincount(each, minlength=self.count)[self.of_record] for each in picked)
            figures = (summary(numpy.repeat(table, each, axis=0)) for each in times)
            return numpy.fromiter(figures, dtype=numpy.float64, count=len(picked))

        return draw


def percentiles(samples: Sequence[float], wanted: Collection[float] = PERCENTILES) -> Mapping[str, float]:
    """The percentiles that the number of samples allows, by name, such as {"50": 0.21, "90": 0.34}.

    The 50th is the plain median, of any number of samples. One above is MLPerf's early-stopping estimate: a time that at
    least so many of all calls stay within, with 99 % confidence; it lies a little above the percentile of the samples, and
    needs 64 of them for the 90th and 662 for the 99th. Source: `loadgen/early_stopping.cc` and, for the single stream,
    `loadgen/results.cc` of mlcommons/inference; the rules are appendix "Early Stopping" of its inference_rules.adoc.
    """
    found, ordered = dict[str, float](), sorted(samples)
    for percentile in wanted:
        if not 50 <= percentile < 100:
            raise ValueError(f"a percentile of times is from 50 to below 100, not {percentile}")
        place = 1 if percentile == 50 else place_from_top(len(ordered), percentile)
        if ordered and place:
            found[f"{percentile:g}"] = _median(ordered) if percentile == 50 else ordered[-place]
    return found


def _median(ordered: Sequence[float]) -> float:
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def place_from_top(count: int, percentile: float) -> int:
    """The place, from the top, of the sample that is the estimate of a percentile: 1 is the largest. 0: there are too few samples.

    It is the largest t for which t or fewer of `count` calls would be over the percentile only with a probability below
    1 - CONFIDENCE, if each is over it with the probability 1 - percentile / 100: a sum over the binomial distribution.
    """
    over = 1 - percentile / 100
    term = count * math.log1p(-over)  # the logarithm of the probability that none of them is over
    total, most = math.exp(term), 0
    for times in range(1, count):
        term += math.log((count - times + 1) / times) + math.log(over / (1 - over))
        total += math.exp(term)
        if total >= 1 - CONFIDENCE:
            break
        most = times
    return most


def fewest_samples(percentile: float) -> int:
    """How many samples `percentiles` needs for a percentile: 64 for the 90th, 662 for the 99th."""
    count = 2
    while not place_from_top(count, percentile):
        count += 1
    return count


def is_steady(samples: Sequence[float], *, window: int = 5, tolerance: float = 0.05) -> bool:
    """Whether a warm-up may end: the running median no longer moves.

    It is taken over the last `window` samples, and looked at `window` times, one sample apart, so that 2 * window - 1 samples
    are needed; the largest of them may exceed the least by `tolerance` of it. One slow call among fast ones does not count.
    """
    if len(samples) < 2 * window - 1:
        return False
    recent = samples[-(2 * window - 1) :]
    medians = [_median(sorted(recent[start : start + window])) for start in range(window)]
    return max(medians) - min(medians) <= tolerance * min(medians)
