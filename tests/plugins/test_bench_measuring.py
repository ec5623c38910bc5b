"""How a bench measures, with hosts that only pretend: which cell runs when, on which records, and when it is enough."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import modelgraft as mg
from modelgraft_plugins.benching import measuring_state
from modelgraft_plugins.benching.cells import WantedCell
from modelgraft_plugins.benching.hosts import CellFailed, Hosts
from modelgraft_plugins.benching.measuring import measure
from modelgraft_plugins.benching.measuring_records import walk_of
from modelgraft_plugins.benching.outcomes import Outcomes
from modelgraft_plugins.benching.results import Cell, Method, Reason


def wanted(id, **facts):
    planned = Cell(id=id, key=f"key of {id}", values={}, command="", state="unfinished", graph="toy")
    return WantedCell(id=id, key=planned.key, values={}, graph="toy", command="", planned=planned, **facts)


class Scripted:
    """Makes hosts that answer by a script, and notes what they are asked.

    took     seconds of a run by cell, or a function of the cell and how often it ran;  broken  by cell, records that fail
    refuses  raises what a host would, given the cell, what it is asked and how often it was
    writes   by cell, the tokens that a node writes for each record, the first after 0.25 s and the last after 0.75 s
    """

    def __init__(self, took=None, broken=None, refuses=lambda *_: None, writes=None):
        self.took, self.broken, self.refuses, self.writes = took or {}, broken or {}, refuses, writes or {}
        self.asked, self.hosts, self.ended = [], [], 0

    def __call__(self, records, *, variables, timeout_s):
        host = _Host(self, variables, records)
        self.hosts.append(host)
        return host

    def ran(self, cell=None):
        """The records of each timed or warming run, in their order."""
        return [(name, tuple(facts["records"])) for name, do, facts in self.asked if do == "run" and cell in (None, name)]


class _Host:
    def __init__(self, script, variables, records):
        self.script, self.variables, self.records = script, variables, records

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.end()

    def end(self):
        self.script.ended += 1

    def ask(self, do, *, cell="", **facts):
        script = self.script
        script.asked.append((cell, do, facts))
        script.refuses(cell, do, sum(1 for name, did, _ in script.asked if (name, did) == (cell, do)))
        if do == "look":
            held = {"cpu": 100}
            return {"edges": {}, "writes": "node" if cell in script.writes else "", "cached": [], "held": held, "warnings": [], "media": []}
        if do == "answer":
            failed = [[record, "node", "no luck"] for record in facts["records"] if record in script.broken.get(cell, ())]
            good = set(facts["records"]) - {record for record, *_ in failed}
            for record in good:
                Outcomes(Path(facts["folder"])).add(record, {"text": f"answer {record}"})
            tokens = {str(record): script.writes[cell][record] for record in good} if cell in script.writes else {}
            return {"failed": failed, "wall": self._seconds(cell), "tokens": tokens}
        if do == "run":
            wall = self._seconds(cell)
            written = {"first": 0.25, "done": 0.75, "pieces": 9} if facts.get("writes") else {}
            return {"wall": wall, "cpu": wall, "spans": [["node", 0.0, wall]], **written}
        return {"resident": 1 << 20, "device": {}} if do == "peaks" else None

    def _seconds(self, cell):
        took = self.script.took.get(cell, 1.0)
        return took(sum(1 for name, do, _ in self.script.asked if name == cell and do in ("run", "answer"))) if callable(took) else took


def run(cells, script, *, records=4, tell=lambda text: None, done=None, **more):
    handed = {} if done is None else done
    method = Method(**{"cold": 0, "rounds": 3, "warm_ups": 0, **more.pop("method", {})})
    return measure(
        cells, [{}] * records, method, tell=tell, done=lambda cell: handed.update({cell.id: cell}), start=script, **more
    )  # fmt: skip


def rounds_of(script, count):
    """The order of the cells in each of the last rounds of so many cells."""
    names = [name for name, _ in script.ran()]
    return [names[start : start + count] for start in range(0, len(names), count)]


def test_each_round_runs_every_cell_once_in_an_order_of_its_own():
    """Never all of one and then all of another; the same seed gives the same orders, another seed others."""
    orders = []
    for seed in (1, 1, 2):
        script = Scripted()
        run([wanted(name) for name in "abcd"], script, method={"seed": seed, "rounds": 8})
        rounds = rounds_of(script, 4)
        assert len(rounds) == 8
        assert all(sorted(one) == list("abcd") for one in rounds)
        orders.append(rounds)
    assert orders[0] == orders[1] != orders[2]
    assert len({tuple(one) for one in orders[0]}) > 1


def test_records_walk_on_and_are_the_same_for_every_cell_of_a_round():
    """All are used; a larger batch takes those that follow as well."""
    script = Scripted()
    run([wanted("a"), wanted("b"), wanted("c", batch=3)], script, method={"rounds": 5})
    assert [records for _, records in script.ran("a")] == [(0,), (1,), (2,), (3,), (0,)]
    assert script.ran("b") == [("b", records) for _, records in script.ran("a")]
    assert [records for _, records in script.ran("c")][:2] == [(0, 1, 2), (1, 2, 3)]


def test_records_that_fail_in_one_cell_are_run_by_none_and_listed():
    """And they are in no figure: neither in samples nor in agreement."""
    script = Scripted(broken={"b": {1}})
    found = run([wanted("a"), wanted("b")], script, method={"rounds": 4})
    assert {record for _, (record,) in script.ran()} == {0, 2, 3}
    assert [(failure.record, failure.text) for failure in found.cells[1].failures] == [(1, "no luck")]
    assert found.cells[0].failures == ()
    assert found.cells[1].agreement == 1.0
    assert found.cells[1].ratio is not None


def test_a_cell_in_which_most_records_fail_does_not_take_them_from_the_others():
    """It runs those that it can, and is compared with nobody."""
    script = Scripted(broken={"b": {0, 1, 2}})
    found = run([wanted("a"), wanted("b")], script, method={"rounds": 4})
    assert {record for _, (record,) in script.ran("a")} == {0, 1, 2, 3}
    assert {record for _, (record,) in script.ran("b")} == {3}
    assert found.cells[1].ratio is None
    assert "more records fail than succeed" in found.cells[1].untaken["ratio"]


@given(
    count=st.integers(1, 12),
    failed=st.lists(st.sets(st.integers(0, 11)), min_size=1, max_size=4),
    batches=st.lists(st.integers(1, 5), min_size=4, max_size=4),
)
def test_no_walk_meets_a_record_that_fails_in_its_cell(count, failed, batches):
    """And every record that succeeds everywhere is met by every cell that is compared."""
    cells = {f"c{index}": {record for record in one if record < count} for index, one in enumerate(failed)}
    cells = {name: one for name, one in cells.items() if len(one) < count}
    if not cells:
        return
    sizes = dict(zip(cells, batches, strict=False))
    walk = walk_of(count, cells, sizes)
    for name, broken in cells.items():
        met = {record for number in range(-2, 2 * count) for record in walk.at(name, number, sizes[name])}
        assert met.isdisjoint(broken)
        if name not in walk.apart:
            assert met == set(walk.records)


def test_a_cell_that_fails_in_every_record_is_failed_and_the_others_go_on():
    """Its reason is that of the first record."""
    script = Scripted(broken={"a": {0, 1, 2, 3}})
    found = run([wanted("a"), wanted("b")], script)
    assert [cell.state for cell in found.cells] == ["failed", "measured"]
    assert found.cells[0].reasons[0].text == "all of the first 4 records fail in it, the first with: no luck"
    assert found.baseline == "b"
    assert found.cells[1].ratio.verdict == "baseline"


def test_a_hopeless_cell_is_not_asked_about_every_record():
    """Eight batches that fail whole are enough."""
    script = Scripted(broken={"a": set(range(100))})
    run([wanted("a"), wanted("b")], script, records=100)
    assert Counter(name for name, do, _ in script.asked if do == "answer") == {"a": 8, "b": 100}


def test_a_host_that_dies_takes_only_the_cell_that_it_ran():
    """The others are opened in a new one, and led in before they are timed again."""

    def refuses(cell, do, times):
        if (cell, do, times) == ("b", "run", 2):
            raise CellFailed([Reason(code="died", text="its process ended with exit code 3")], is_lost=True)

    script = Scripted(refuses=refuses)
    found = run([wanted("a"), wanted("b"), wanted("c")], script, method={"rounds": 5})
    assert [cell.state for cell in found.cells] == ["measured", "failed", "measured"]
    assert found.cells[1].reasons[0].text == "its process ended with exit code 3"
    assert [len(cell.samples) for cell in found.cells] == [5, 1, 5]
    assert len(script.hosts) == script.ended == 2
    assert len(script.ran("a")) == len(script.ran("c")) == 6  # one more, untimed, in the new process


def test_a_round_in_which_a_cell_fails_has_no_sample_of_it():
    """Three such rounds end it; one is listed, and the pairs are those of the other rounds."""
    odd = Scripted(refuses=lambda cell, do, times: _fails(cell == "b" and do == "run" and times == 2))
    found = run([wanted("a"), wanted("b")], odd, method={"rounds": 7})
    assert [sample.round for sample in found.cells[1].samples] == [0, 2, 3, 4, 5, 6]
    assert found.cells[1].ratio.wall.n == 6
    assert found.cells[1].failures[0].text == "in round 2: no luck"
    always = Scripted(refuses=lambda cell, do, times: _fails(cell == "b" and do == "run"))
    found = run([wanted("a"), wanted("b")], always, method={"rounds": 7})
    assert found.cells[1].state == "failed"
    assert len(always.ran("b")) == 3


def _fails(is_so):
    if is_so:
        raise CellFailed([Reason(code="NodeError", text="no luck")])


def test_each_number_of_threads_has_a_host_of_its_own():
    """Set before torch is imported; one process holds all cells that share it."""
    script = Scripted()
    run([wanted("a", threads=1), wanted("b", threads=1), wanted("c", threads=2), wanted("d")], script)
    assert [host.variables.get("OMP_NUM_THREADS") for host in script.hosts] == ["1", "2", None]


def test_cold_starts_are_fresh_processes_cold_and_warm():
    """Two for each cell and time, each of which ends; the warm one finds what the cold one has kept."""
    script = Scripted()
    found = run([wanted("a"), wanted("b")], script, method={"cold": 3})
    fresh = script.hosts[1:]
    assert len(fresh) == 2 * 2 * 3
    places = [host.variables["MODELGRAFT_CACHE"] for host in fresh]
    assert places[::2] == places[1::2]
    assert len(set(places)) == 6
    assert found.cells[0].start.cold.n == found.cells[0].start.warm.n == 3
    assert found.cells[0].memory.resident == 1 << 20
    assert script.ended == len(script.hosts)


def test_without_cold_starts_it_is_said_what_is_not_taken():
    """A figure that is None has its reason."""
    found = run([wanted("a")], Scripted())
    assert found.cells[0].start.cold is None
    assert found.cells[0].untaken["start"] == "no fresh process was started: --cold 0"
    assert found.cells[0].untaken["p90"] == "it needs 64 samples, and there are 3"


def test_warm_up_goes_on_until_the_running_median_is_steady():
    """Runs that answered count; a cell that never settles ends at the most that is asked for."""
    sinking = Scripted(took={"a": lambda ran: max(8.0 / ran, 1.0), "b": 1.0, "c": lambda ran: 2.0**ran})
    found = run([wanted(name) for name in "abc"], sinking, records=5, method={"warm_ups": 12, "rounds": 1})
    assert [cell.warm_ups for cell in found.cells] == [6, 0, 12]


def test_rounds_stop_when_the_ratios_are_precise():
    """Not before there can be an interval; what ended them is told."""
    script = Scripted(took={"a": 1.0, "b": 2.0})
    found = run([wanted("a"), wanted("b")], script, method={"precision_target": 0.03, "rounds": 50})
    assert len(found.cells[0].samples) == 6
    assert found.method.stopped_by == "the precision of 0.03"
    assert found.cells[1].ratio.wall.value == 2.0
    assert found.cells[1].ratio.verdict == "slower"


def test_a_wide_ratio_goes_on_to_the_most_rounds():
    """Half of the runs take twice as long, at odd times."""
    script = Scripted(took={"b": lambda ran: 1.0 + (ran * 7919 % 5 > 1)})
    found = run([wanted("a"), wanted("b")], script, method={"precision_target": 0.03, "rounds": 20})
    assert (len(found.cells[0].samples), found.method.stopped_by) == (20, "20 rounds")
    assert found.cells[1].ratio.verdict == "no difference seen"


def test_a_budget_that_is_too_small_for_a_round_says_what_one_takes():
    """What was found before is handed over."""
    handed = {}
    script = Scripted(took={"a": 100.0, "b": 20.0})
    with pytest.raises(mg.InputError, match=r"budget of 5\.0+ s is too small for one round: .* a round of 2 cells takes about 120 s"):
        run([wanted("a"), wanted("b")], script, method={"budget_s": 5.0}, done=handed)
    assert {name: cell.state for name, cell in handed.items()} == {"a": "unfinished", "b": "unfinished"}
    assert handed["b"].agreement == 1.0
    assert script.ended == len(script.hosts)


def test_a_budget_that_ends_before_all_have_answered_is_told_then():
    """Not after hours: what is known of a round is said with it."""
    with pytest.raises(mg.InputError, match=r"answering 1 of 5 cells took .* and a round of 5 cells takes about"):
        run([wanted(name) for name in "abcde"], Scripted(), method={"budget_s": 1e-9})


def test_a_start_that_fails_is_a_figure_that_is_not_taken():
    """The cell is measured all the same, and not started again."""
    script = Scripted(refuses=lambda cell, do, times: _fails(do == "open" and cell == "b" and times > 1))
    found = run([wanted("a"), wanted("b")], script, method={"cold": 2})
    assert [cell.state for cell in found.cells] == ["measured", "measured"]
    assert found.cells[1].start.cold is None
    assert found.cells[1].untaken["start"] == "no luck"
    assert len(script.hosts) == 1 + 2 * 2 + 1


def test_ctrl_c_ends_all_hosts_and_keeps_what_was_measured():
    """Two rounds were over, and one cell of the third."""

    def refuses(cell, do, times):
        if do == "run" and len(script.ran()) == 6:
            raise KeyboardInterrupt

    script, left = Scripted(refuses=refuses), []

    class Handed(dict):
        def update(self, found):
            left.append(len(script.hosts) - script.ended)
            super().update(found)

    handed = Handed()
    with pytest.raises(KeyboardInterrupt):
        run([wanted("a"), wanted("b", threads=1)], script, method={"rounds": 9}, done=handed)
    assert left == [0, 0]  # first the processes end
    assert script.ended == len(script.hosts) == 2
    assert {cell.state for cell in handed.values()} == {"unfinished"}
    assert sorted(len(cell.samples) for cell in handed.values()) == [2, 3]


def test_a_bench_goes_on_where_another_was_stopped():
    """Rounds are numbered on, samples count, and the orders are those that one bench would have had."""
    whole, first, second = Scripted(), Scripted(), Scripted()
    cells = [wanted("a"), wanted("b")]
    run(cells, whole, method={"rounds": 6})
    kept = {cell.key: replace(cell, state="unfinished") for cell in run(cells, first, method={"rounds": 2}).cells}
    found = run(cells, second, method={"rounds": 6}, kept=kept)
    assert [sample.round for sample in found.cells[0].samples] == [0, 1, 2, 3, 4, 5]
    assert first.ran() + second.ran() == whole.ran()
    assert found.cells[1].shares.wall_s == 1.0


def test_cells_that_were_measured_stay_and_new_ones_are_measured_beside_the_first():
    """A ratio is taken within rounds, so that the first cell runs in those of the new ones as well; one that failed is tried again."""
    first, second = Scripted(broken={"c": {0, 1, 2, 3}}), Scripted()
    kept = {cell.key: cell for cell in run([wanted(name) for name in "abc"], first, method={"rounds": 6}).cells}
    found = run([wanted(name) for name in "abcd"], second, method={"rounds": 6}, kept=kept)
    assert [cell.state for cell in found.cells] == ["measured"] * 4
    assert {name for name, *_ in second.ran()} == {"a", "c", "d"}
    assert [len(cell.samples) for cell in found.cells] == [12, 6, 6, 6]
    assert [cell.ratio.wall.n for cell in found.cells[1:]] == [6, 6, 6]
    assert found.cells[1] == kept["key of b"]


def test_where_all_was_measured_nothing_is_asked():
    """No host is even started."""
    kept = {cell.key: cell for cell in run([wanted("a"), wanted("b")], Scripted()).cells}
    script = Scripted()
    found = run([wanted("a"), wanted("b")], script, kept=kept)
    assert list(found.cells) == list(kept.values())
    assert script.hosts == []


def test_cells_that_do_not_fit_into_memory_together_take_turns(tmp_path):
    """The one that was asked least recently is closed, and opened anew when it is its turn; sizes are those that were measured."""
    script = Scripted()
    with Hosts(tmp_path / "records", timeout_s=1.0, most_bytes=250, start=script) as hosts:
        cells = [wanted(name) for name in "abc"]
        for cell in cells:
            hosts.ask(cell, "look")
            hosts.weighs(cell, 100)
        assert [hosts.is_open(cell) for cell in cells] == [False, True, True]
        hosts.ask(cells[1], "run", records=[0], writes="")
        hosts.ask(cells[0], "run", records=[0], writes="")
        assert [hosts.is_open(cell) for cell in cells] == [True, True, False]
    told = [(name, do) for name, do, _ in script.asked if do in ("open", "close")]
    assert told == [("a", "open"), ("b", "open"), ("c", "open"), ("a", "close"), ("c", "close"), ("a", "open")]
    assert script.ended == 1


def test_time_for_a_token_is_that_of_the_tokens_after_the_first():
    """Tokens are counted as the node gives them, not as pieces of text; in a batch the longest answer has the steps."""
    script = Scripted(writes={"a": [3, 5, 1, 2]})
    found = run([wanted("a"), wanted("b", batch=2), wanted("c")], script, method={"rounds": 4})
    samples = found.cells[0].samples
    assert [sample.tokens for sample in samples] == [3, 5, 1, 2]
    assert [sample.first_token_s for sample in samples] == [0.25] * 4
    assert [sample.per_token_s for sample in samples] == [0.25, 0.125, None, 0.5]
    assert found.cells[0].first_token_s.value == 0.25
    assert found.cells[2].first_token_s is None
    assert found.cells[2].untaken["first_token_s"] == "nothing in it writes text piece by piece"


def test_no_two_hosts_compute_at_a_time_and_none_is_left():
    """They are asked one after the other: each answer is there before the next question."""
    script = Scripted()
    run([wanted(name, threads=index + 1) for index, name in enumerate("abc")], script, method={"cold": 1})
    assert script.ended == len(script.hosts) == 3 + 2 * 3


def test_what_takes_long_is_told_again_with_the_time_that_it_took(monkeypatch):
    """A start that exports takes minutes: silence would look like a hang. What is done is told no more."""
    monkeypatch.setattr(measuring_state, "STILL_S", 0.02)
    told = []
    script = Scripted(refuses=lambda cell, do, times: time.sleep(0.2) if (cell, do, times) == ("b", "open", 2) else None)
    run([wanted("a"), wanted("b")], script, tell=told.append, method={"cold": 1})
    again = [text for text in told if text.endswith(" so far")]
    assert again
    assert all(text.startswith("starting cold and then warm in fresh processes") and ": b, " in text for text in again)
