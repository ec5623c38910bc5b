"""How sure a figure is: intervals that cover, ratios within rounds, percentiles as MLPerf's load generator gives them."""

import numpy
import pytest
from scipy.stats import binom

from modelgraft_plugins.intervals import (
    FEWEST,
    bootstrap,
    fewest_samples,
    is_steady,
    paired_difference,
    percentiles,
    place_from_top,
    ratio_of_rounds,
)  # fmt: skip


@pytest.mark.parametrize(
    ("samples", "percentile", "discarded"),
    [(63, 90, None), (64, 90, 0), (100, 90, 2), (200, 90, 9), (1000, 90, 77), (2048, 90, 172), (661, 99, None), (662, 99, 0),
     (5000, 99, 32), (129, 95, None), (130, 95, 0), (200, 95, 2), (218, 97, None), (219, 97, 0), (400, 97, 3)],
)  # fmt: skip
def test_as_many_samples_are_discarded_as_the_load_generator_of_mlperf_discards(samples, percentile, discarded):
    """The figures are what mlcommons-loadgen 6.0.17 said in the single stream with so many queries: "Would discard 2 highest latency"."""
    assert place_from_top(samples, percentile) == (0 if discarded is None else discarded + 1)


def test_the_bound_of_a_percentile_is_that_of_the_binomial_distribution():
    """The same bound, asked of scipy: the most calls over the percentile that are less likely than 1 %."""
    for count in (2, 11, 64, 300, 2000):
        for percentile in (60, 90, 99):
            allowed = [times for times in range(1, count) if binom.cdf(times, count, 1 - percentile / 100) < 0.01]
            assert place_from_top(count, percentile) == max(allowed, default=0), (count, percentile)


def test_a_percentile_is_told_only_where_the_number_of_samples_allows_it():
    """p90 from 64, p99 from 662; the median always; the estimate is one of the samples, above the plain percentile."""
    assert [fewest_samples(90), fewest_samples(99)] == [64, 662]
    assert percentiles([]) == {}
    assert percentiles([3.0, 1.0]) == {"50": 2.0}
    assert percentiles([float(n) for n in range(63)]) == {"50": 31.0}
    assert percentiles([float(n) for n in range(100, 0, -1)]) == {"50": 50.5, "90": 98.0}
    assert percentiles([1.0] * 661 + [9.0]) == {"50": 1.0, "90": 1.0, "99": 9.0}
    with pytest.raises(ValueError, match="from 50 to below 100, not 100"):
        percentiles([1.0], [100])


def test_a_ratio_is_taken_within_rounds_so_that_what_both_have_in_common_falls_out():
    """The machine slows down tenfold under way: the ratio stays what it is, and is seen."""
    drift = numpy.linspace(1, 10, 20)
    noise = numpy.random.default_rng(3).normal(1, 0.01, size=(2, 20))
    found = ratio_of_rounds(0.8 * drift * noise[0], drift * noise[1])
    assert found.verdict == "faster"
    assert found.low < 0.8 < found.high < 0.83
    assert ratio_of_rounds(drift * noise[1], 0.8 * drift * noise[0]).verdict == "slower"
    assert ratio_of_rounds(drift * noise[0], drift * noise[1]).verdict == "no difference seen"


def test_too_few_rounds_have_no_interval_and_show_no_difference():
    found = ratio_of_rounds([1.0] * (FEWEST - 1), [2.0] * (FEWEST - 1))
    assert (found.value, found.low, found.high, found.verdict) == (0.5, None, None, "no difference seen")
    assert bootstrap([1.0] * (FEWEST - 1)).low is None


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """Of 200 samples of 60 normal numbers, the interval of the mean holds the true one in about 95 %."""
    random = numpy.random.default_rng(11)
    held = 0
    for _ in range(200):
        found = bootstrap(random.normal(5, 2, size=60), resamples=400)
        held += found.low <= 5 <= found.high
    assert 180 <= held <= 198  # of 200: 190 by the level, less what a bootstrap of 60 lacks; 4 standard deviations are 12


def test_a_summary_of_rows_is_drawn_as_the_plain_mean_is():
    """The same seed draws the same records, whichever way the figure is made."""
    rows = numpy.random.default_rng(5).normal(size=(40, 2))
    clusters = [n // 3 for n in range(40)]
    for given in ({}, {"clusters": clusters}):
        fast = bootstrap(rows, **given, resamples=300)
        slow = bootstrap(rows, lambda table: float(table[:, 0].mean()), **given, resamples=300)
        assert (fast.low, fast.high) == pytest.approx((slow.low, slow.high), abs=1e-12)
        assert fast.draws == (14 if given else 40)


def test_a_figure_of_sums_is_drawn_as_one_of_rows_is():
    """A quotient of sums, given the sums alone or all rows: the same draws, the same interval."""
    rows = numpy.random.default_rng(5).uniform(1, 2, size=(40, 2))
    seen = []

    def quotient(table):
        seen.append(len(table))
        return float(table[:, 0].sum() / table[:, 1].sum())

    for given in ({}, {"clusters": [n // 3 for n in range(40)]}):
        quick = bootstrap(rows, quotient, **given, of_sums=True, resamples=300)
        assert (seen.count(1), seen.count(40)) == (300, 1)
        slow = bootstrap(rows, quotient, **given, resamples=300)
        assert (quick.low, quick.high) == pytest.approx((slow.low, slow.high), abs=1e-12)
        seen.clear()


def test_records_of_one_cluster_are_drawn_together():
    """Ten questions about each of eight pictures, all answered alike: there are eight independent answers, not eighty."""
    answers = numpy.repeat([1.0, 0, 1, 0, 1, 0, 1, 0], 10)
    pictures = [n // 10 for n in range(80)]
    alone, together = bootstrap(answers), bootstrap(answers, clusters=pictures)
    assert (together.n, together.draws) == (80, 8)
    ratio = (together.high - together.low) / (alone.high - alone.low)
    assert 10**0.5 * 0.8 < ratio < 10**0.5 * 1.2  # the standard error grows with the root of the size of a cluster


def test_a_paired_difference_sees_what_two_intervals_hide():
    """Every record is a little better, and records differ a lot: the difference is sure, though the intervals overlap."""
    base = numpy.random.default_rng(7).uniform(0, 1, size=50)
    found = paired_difference(base + 0.02, base)
    assert found.low == pytest.approx(0.02)
    assert found.high == pytest.approx(0.02)
    assert bootstrap(base).high > bootstrap(base + 0.02).low
    slow = paired_difference(base + 0.02, base, lambda table: float(table.mean()), resamples=50)
    assert slow.value == pytest.approx(0.02)
    with pytest.raises(ValueError, match="one side has 3, the other 2"):
        paired_difference([1, 2, 3], [1, 2])


def test_the_same_seed_gives_the_same_interval():
    rows = numpy.random.default_rng(1).normal(size=30)
    assert bootstrap(rows, seed=4) == bootstrap(rows, seed=4) != bootstrap(rows, seed=5)


def test_rows_that_are_no_table_are_refused():
    with pytest.raises(ValueError, match=r"\[records statistics\] with at least one of each, not \[0, 1\]"):
        bootstrap([])
    with pytest.raises(ValueError, match="3 records, and clusters of 2"):
        bootstrap([1, 2, 3], clusters=["a", "b"])


def test_a_warm_up_ends_when_the_running_median_is_steady():
    falling = [10.0 / (n + 1) for n in range(9)]
    assert not is_steady(falling)
    assert not is_steady([1.0] * 8)
    assert is_steady([1.0] * 9)
    assert is_steady([*falling, *[1.0] * 9])
    assert is_steady([1.0, 1.01, 0.99, 5.0, 1.0, 1.0, 1.02, 1.0, 1.0])  # one slow call among fast ones
