"""Nodes that take next to no time are timed together: each has its part, and what becomes slow is told."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelgraft.engine.together import BRIEF_S, MOST_TOGETHER, Groups
from support.running import function, opened

SECONDS = st.lists(st.floats(1e-9, 5e-6), min_size=1, max_size=80)


@given(SECONDS)
def test_only_brief_neighbours_are_timed_together(seconds):
    """Every job ends with one group, in order; who takes long is alone, and no group is large."""
    groups = Groups.of(seconds)
    spans = list(pairwise((0, *groups.ends)))
    assert [index for first, last in spans for index in range(first, last)] == list(range(len(seconds)))
    for first, last in spans:
        assert last - first == 1 or all(seconds[index] < BRIEF_S for index in range(first, last))
        assert last - first <= MOST_TOGETHER


@given(SECONDS)
def test_a_group_is_divided_as_its_jobs_took_when_each_was_timed_by_itself(seconds):
    """Runs that take twice as long take twice as long in every job, and end when the clock says so."""
    groups = Groups.of(seconds)
    stamps = [7.0, *(7.0 + 2 * sum(seconds[:end]) for end in groups.ends)]
    found = groups.spread(stamps)
    assert list(found)[:: len(found) - 1] == [stamps[0], stamps[-1]]
    assert [end - start for start, end in pairwise(found)] == pytest.approx([2 * took for took in seconds], abs=1e-12)


def test_a_node_that_becomes_slow_is_told_by_its_own_time(tmp_path):
    """Its neighbours are as brief as before, a few runs later."""
    naps = []

    def nap(x):
        time.sleep(naps[0]) if naps else None
        return x

    parts = [
        function("toy/same", {"x": "object"}, {"out": "object"}, lambda x: x),
        function("toy/nap", {"x": "object"}, {"out": "object"}, nap),
    ]
    nodes = {f"n{i}": {"use": "toy/same", "in": {"x": f"n{i - 1}" if i else "inputs.x"}} for i in range(6)}
    nodes["n3"]["use"] = "toy/nap"
    with opened(tmp_path, parts, nodes, outputs={"out": "n5"}, inputs={"x": "object"}) as pipeline:
        for _ in range(10):
            timings = pipeline.run(x=1).timings
        assert set(timings) == set(nodes)
        assert all(took > 0 for took in timings.values())
        naps.append(0.005)
        later = [pipeline.run(x=1).timings for _ in range(8)]
        assert any(took["n3"] >= 0.004 and all(took[name] < 0.002 for name in nodes if name != "n3") for took in later)
