"""From samples to figures: medians with intervals, percentiles that their number allows, ratios within rounds, and what was not taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from modelgraft_plugins import intervals
from modelgraft_plugins.benching.results import Cell, Ratio, Sample, Spread

RESAMPLES = 2000  # of figures that stand for themselves: the ends of their intervals move by 2 % of the width
PARTED = 1.25  # wall and CPU ratios without intervals that differ by more tell of different things
NEEDED = {"90": 64, "99": 662}  # samples for a percentile, after MLPerf's early stopping


def spread(figures: Sequence[float], *, seed: int) -> Spread | None:
    """The median of some figures with its interval; None of none."""
    if not figures:
        return None
    over_one = [1.0] * len(figures)  # so that the ratio is the figure itself
    found = intervals.ratio_of_rounds(figures, over_one, resamples=RESAMPLES, seed=seed)
    return Spread(value=found.value, low=found.low, high=found.high, n=found.n)


def with_figures(cell: Cell, *, seed: int) -> Cell:
    """The cell with what follows from its samples."""
    samples = cell.samples
    walls = [sample.wall_s for sample in samples]
    firsts = [sample.first_token_s for sample in samples if sample.first_token_s is not None]
    each = [sample.per_token_s for sample in samples if sample.per_token_s is not None]
    return replace(
        cell,
        wall_s=spread(walls, seed=seed),
        cpu_s=spread([sample.cpu_s for sample in samples], seed=seed),
        p=intervals.percentiles(walls),
        first_token_s=spread(firsts, seed=seed),
        per_token_s=spread(each, seed=seed),
        per_second=_throughput(samples, seed=seed),
        untaken={**cell.untaken, **_untaken(samples)},
    )


def _throughput(samples: Sequence[Sample], *, seed: int) -> Spread | None:
    """Records in a second: the median over the runs."""
    return spread([sample.records / sample.wall_s for sample in samples if sample.wall_s > 0], seed=seed)


def _untaken(samples: Sequence[Sample]) -> dict[str, str]:
    count = len(samples)
    found = {f"p{name}": f"it needs {least} samples, and there are {count}" for name, least in NEEDED.items() if count < least}
    if all(sample.first_token_s is None for sample in samples):
        found |= dict.fromkeys(("first_token_s", "per_token_s"), "nothing in it writes text piece by piece")
    elif all(sample.per_token_s is None for sample in samples):
        found |= dict.fromkeys(("per_token_s",), "no answer has more than one token")
    return found


def ratio_to(baseline: Cell, cell: Cell, *, seed: int, warning: str = "") -> Ratio | None:
    """Compare two cells by the rounds that both have samples of; seconds are those for a record, so that batches of any size compare.

    warning  what is known against the figures already, such as a busy machine

    None where they have no round in common.
    """
    pairs = _paired(baseline.samples, cell.samples)
    if not pairs:
        return None
    wall = intervals.ratio_of_rounds([a.wall_s / a.records for _, a in pairs], [b.wall_s / b.records for b, _ in pairs], seed=seed)
    cpu = intervals.ratio_of_rounds([_cpu(a) for _, a in pairs], [_cpu(b) for b, _ in pairs], seed=seed)
    is_baseline = baseline is cell or baseline.id == cell.id
    told = [text for text in (warning, "" if is_baseline else _parting(wall, cpu)) if text]
    return Ratio(
        wall=Spread(value=wall.value, low=wall.low, high=wall.high, n=wall.n),
        cpu=Spread(value=cpu.value, low=cpu.low, high=cpu.high, n=cpu.n),
        verdict="baseline" if is_baseline else wall.verdict,
        warning="; ".join(told),
    )


def _paired(baseline: Sequence[Sample], samples: Sequence[Sample]) -> list[tuple[Sample, Sample]]:
    by_round: Mapping[int, Sample] = {sample.round: sample for sample in baseline}
    return [(by_round[sample.round], sample) for sample in samples if sample.round in by_round]


def _cpu(sample: Sample) -> float:
    return max(sample.cpu_s, 1e-9) / sample.records  # a clock of the system may not have moved


def _parting(wall: intervals.Interval, cpu: intervals.Interval) -> str:
    """What wall and CPU ratios say together where they do not agree; "" where they do."""
    if None in (wall.low, wall.high, cpu.low, cpu.high):
        apart = max(wall.value, cpu.value) > PARTED * min(wall.value, cpu.value)
    else:
        apart = (wall.low or 0.0) > (cpu.high or 0.0) or (cpu.low or 0.0) > (wall.high or 0.0)
    text = f"wall ({wall.value:.2f}) and CPU time ({cpu.value:.2f}) part: one of the two waited, or they use cores differently"
    return text if apart else ""


def ratios_of(baseline: Sequence[Sample], samples: Sequence[Sample]) -> list[float]:
    """The ratios of the wall time of a record, by round."""
    return [(one.wall_s / one.records) / (other.wall_s / other.records) for other, one in _paired(baseline, samples)]
