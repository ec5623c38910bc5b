"""Two benches beside each other: cells by what they mean, and only what moved beyond both intervals."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelgraft_plugins.benching.comparing import compare, ratio_of, worse
from modelgraft_plugins.benching.results import Quality, Spread
from support.benched import made_results


def bench(**facts):
    """A small bench, with the first cell as told."""
    found = made_results({"eye": ("a", "b")}, nodes=2)
    return replace(found, cells=[replace(found.cells[0], **facts), *found.cells[1:]])


def near(value, part=0.01, n=20):
    """A figure that is known to a part."""
    return Spread(value=value, low=value * (1 - part), high=value * (1 + part), n=n)


def moved(old, new, figure):
    """The figure of the first cell, then and now."""
    return next((one for one in compare(old, new).cells[0].moved if one.figure == figure), None)


@pytest.mark.parametrize(
    ("then", "now", "is_worse", "is_better"),
    [
        (near(1.0), near(1.1), True, False),
        (near(1.0), near(0.9), False, True),
        (near(1.0), near(1.01), False, False),
        (near(1.0, 0.2), near(1.1, 0.2), False, False),
        (near(1.0, 0.001), near(1.1, 0.2), False, False),
        (near(1.0), Spread(value=2.0), False, False),
        (Spread(value=1.0), near(2.0), False, False),
    ],
)
def test_a_time_moved_where_both_intervals_allow_no_other_answer(then, now, is_worse, is_better):
    """What has no interval is told, and never counts."""
    found = moved(bench(wall_s=then), bench(wall_s=now), "wall time")
    assert (found.is_worse, found.is_better) == (is_worse, is_better)
    assert found.ratio.value == pytest.approx(now.value / then.value)


def test_the_interval_of_a_ratio_is_wider_than_that_of_either_side():
    """And is that of the one where the other is exact."""
    exact = Spread(value=2.0, low=2.0, high=2.0)
    found = ratio_of(exact, near(3.0, 0.1))
    assert (found.low, found.high) == (pytest.approx(1.35), pytest.approx(1.65))
    both = ratio_of(near(2.0, 0.1), near(3.0, 0.1))
    assert both.low < found.low < found.high < both.high


@pytest.mark.parametrize(("better", "is_worse"), [("higher", True), ("lower", False)])
def test_a_quality_that_fell_is_worse_where_more_is_better(better, is_worse):
    """On the same data alone."""
    old, new = (
        bench(quality=(Quality(metric="m", output="text", better=better, value=value, low=value - 0.02, high=value + 0.02, n=99),))
        for value in (0.8, 0.6)
    )
    found = moved(old, new, "m of text")
    assert (found.is_worse, found.is_better) == (is_worse, not is_worse)
    assert found.difference.value == pytest.approx(-0.2)
    assert abs(found.part) == pytest.approx(0.25)
    others = replace(new, data=replace(new.data, digest="another"))
    assert moved(old, others, "m of text") is None
    assert any("qualities are not compared" in told for told in compare(old, others).others)


def test_only_what_became_worse_by_more_than_is_allowed_counts():
    """CPU time explains, and fails nothing."""
    old = bench(wall_s=near(1.0), cpu_s=near(1.0), parameters=100)
    new = bench(wall_s=near(1.08), cpu_s=near(1.5), parameters=120)
    assert [one.figure for _, one in worse(compare(old, new), by=0.05)] == ["wall time", "parameters"]
    assert [one.figure for _, one in worse(compare(old, new), by=0.1)] == ["parameters"]
    assert worse(compare(new, old), by=0.01) == []


def test_cells_are_matched_by_their_keys():
    """In whatever order they stand, with whatever ids; what one side alone has is named there."""
    old, new = bench(), bench()
    renamed = replace(new.cells[0], id="c9", values={"other": "x"})
    found = compare(old, replace(new, cells=[new.cells[1], renamed, replace(new.cells[1], id="c3", key="new")]))
    assert [cell.id for cell in found.cells] == ["c2", "c9"]
    assert (found.added, found.gone) == (["c3"], [])
    assert compare(replace(old, cells=[*old.cells, replace(old.cells[0], id="c7", key="old")]), new).gone == ["c7"]


def test_what_is_another_thing_is_told():
    """Machine, versions and variables; a cell that does not run any more; a machine that did something else."""
    old = bench(wall_s=near(1.0), cpu_s=near(1.0))
    around = replace(old.surroundings, processor="another", versions={"torch": "9"}, variables={"OMP_NUM_THREADS": "1"})
    told = "\n".join(compare(old, replace(old, surroundings=around)).others)
    for words in ("the processor was ", "torch was ", "variables of the environment are others: "):
        assert words in told
    failed = bench(state="failed", digest="another")
    notes = compare(old, failed).cells[0].notes
    assert notes[0].startswith("was measured and is failed")
    assert any("what it is made of" in note for note in notes)
    busy = compare(old, bench(wall_s=near(1.4), cpu_s=near(1.0))).cells[0]
    assert "wall and CPU time moved apart: the machine may have been busy" in busy.notes


def test_a_bench_beside_itself_has_not_moved():
    """Nothing is seen where nothing is."""
    found = compare(bench(), bench())
    assert found.others == ()
    assert not [one for cell in found.cells for one in cell.moved if one.is_worse or one.is_better]
