"""Where the time of runs goes: every instant once, and the sums exact."""

from __future__ import annotations

import json
from dataclasses import asdict

from hypothesis import given
from hypothesis import strategies as st

from modelgraft_plugins.benching.accounting import Account
from modelgraft_plugins.benching.results import Shares

INSTANT = st.floats(0, 100, allow_nan=False)
SPAN = st.tuples(st.sampled_from("abc"), INSTANT, INSTANT).map(lambda span: (span[0], min(span[1:]), max(span[1:])))
RUN = st.lists(SPAN, max_size=6).flatmap(
    lambda spans: st.tuples(st.floats(0, 50).map(lambda more: more + max((end for _, _, end in spans), default=0.0)), st.just(spans))
)


def total(shares: Shares) -> float:
    return sum(shares.nodes.values()) + sum(shares.rest.values())


@given(st.lists(RUN, min_size=1, max_size=5))
def test_nodes_and_rest_add_up_to_the_wall_time_exactly(runs):
    """In whatever order they are added, and after a turn through JSON."""
    account = Account()
    for wall, spans in runs:
        account.add(wall, spans)
    shares = account.shares()
    assert total(shares) == shares.wall_s
    read = Shares(**json.loads(json.dumps(asdict(shares))))
    assert total(read) == read.wall_s
    assert sum(reversed([*read.rest.values(), *read.nodes.values()])) == read.wall_s


def test_what_no_node_does_has_a_name():
    """Before the first node, between nodes, behind the last."""
    account = Account()
    account.add(10.0, [("eye", 1.0, 3.0), ("tongue", 4.0, 8.5)])
    shares = account.shares()
    assert shares.nodes == {"eye": 2.0, "tongue": 4.5}
    assert shares.rest == {"inputs": 1.0, "scheduler": 1.0, "outputs": 1.5}
    assert shares.overlapped_s == 0


def test_an_instant_is_shared_among_those_that_run_in_it():
    """What their own clocks say beyond that is told apart."""
    account = Account()
    account.add(8.0, [("eye", 0.0, 6.0), ("ear", 2.0, 4.0), ("join", 6.0, 8.0)])
    shares = account.shares()
    assert shares.nodes == {"eye": 5.0, "ear": 1.0, "join": 2.0}
    assert shares.overlapped_s == 2.0
    assert total(shares) == 8.0


def test_the_mean_run_goes_on_where_an_earlier_bench_stopped():
    """Two runs, and the same two with a file of results between them."""
    whole, first = Account(), Account()
    whole.add(4.0, [("eye", 1.0, 2.0)])
    first.add(4.0, [("eye", 1.0, 2.0)])
    second = Account()
    second.merge(first.shares(), 1)
    for account in (whole, second):
        account.add(8.0, [("eye", 1.0, 7.0)])
    assert whole.shares() == second.shares()
    assert whole.shares().nodes == {"eye": 3.5}


def test_without_runs_there_are_no_shares():
    """None, not zeros."""
    assert Account().shares() is None
