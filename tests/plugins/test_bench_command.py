"""The command `modelgraft bench` with a stopwatch that only pretends: what it answers, what it writes, what it refuses."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from modelgraft.cli import main
from modelgraft_plugins.benching import running
from modelgraft_plugins.benching.files import read_results, schema, write_results
from modelgraft_plugins.benching.measuring import Measured
from modelgraft_plugins.benching.results import Quality, Ratio, Reason, RecordFailure, Sample, Shares, Spread
from modelgraft_plugins.benching.surroundings import surroundings

SAYS = """modelgraft: 1
params: {tail: "!"}
inputs: {word: text}
nodes:
  say: {use: text/template, with: {template: "{word}${tail}"}, in: {word: inputs.word}}
outputs: {text: say.text}
"""


class Clock:
    """Stands in for what measures: every cell takes what it is told to take.

    took   seconds by the value of `tail`;  stops_at  the number of the cell at which Ctrl-C comes;  seen  what it was asked
    at_end is called when all cells were handed over
    """

    def __init__(self):
        self.took, self.stops_at, self.seen, self.rounds, self.failing, self.timeout_s = {}, None, [], 8, {}, None
        self.at_end = lambda: None

    def __call__(self, cells, records, method, *, tell, done, kept, judge, timeout_s):
        self.timeout_s = timeout_s
        self.seen.append(([cell.id for cell in cells], list(records), method, set(kept)))
        found = []
        for number, cell in enumerate(cells):
            if number == self.stops_at:
                signal.raise_signal(signal.SIGINT)
            tell(f"measuring {cell.id}")
            before = kept.get(cell.key)
            found.append(before if before is not None and before.state == "measured" else self.measured(cell, number))
            done(found[-1])
        self.at_end()
        return Measured(
            cells=found,
            method=replace(method, stopped_by="8 rounds"),
            surroundings=surroundings(),
            baseline=found[0].id,
            warnings=["a lorry drove past"],
        )

    def measured(self, cell, number):
        if cell.values.get("tail") in self.failing:
            return replace(cell.planned, state="failed", reasons=(Reason(code="NodeError", text="it broke", place="say"),))
        wall = self.took.get(cell.values.get("tail"), 0.010)
        near = Spread(value=wall, low=wall * 0.99, high=wall * 1.01, n=self.rounds)
        return replace(
            cell.planned,
            state="measured",
            samples=[Sample(round=index, records=cell.batch, wall_s=wall, cpu_s=wall) for index in range(self.rounds)],
            wall_s=near,
            cpu_s=near,
            p={"50": wall},
            shares=Shares(wall_s=wall, nodes={"say": wall * 0.75}, rest={"scheduler": wall * 0.25}),
            ratio=Ratio(
                wall=Spread(value=wall / 0.01, low=wall / 0.0102, high=wall / 0.0098, n=self.rounds),
                cpu=Spread(value=1.0),
                verdict="baseline" if number == 0 else "no difference seen" if wall == 0.01 else "slower",
            ),
            quality=(Quality(metric="word_f1", output="text", better="higher", value=0.5, low=0.4, high=0.6, n=9),),
            failures=(RecordFailure(record=1, place="says.yaml:5", text="no such word"),) if number == 1 else (),
            untaken={"p90": "it needs 64 samples, and there are 8", **({"start": "no fresh process"} if number else {})},
        )


@pytest.fixture
def clock(monkeypatch):
    """What measures, in place of the real one."""
    found = Clock()
    monkeypatch.setattr(running, "measure", found)
    return found


@pytest.fixture
def bench(tmp_path, monkeypatch, capsys, clock):
    """Run the command in a folder with a graph and data; gives exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    Path("says.yaml").write_text(SAYS, encoding="utf-8")
    Path("d.jsonl").write_text("".join(json.dumps({"word": f"w{n}", "references": [f"w{n}!"]}) + "\n" for n in range(3)), encoding="utf-8")

    def run(*words):
        code = main(["bench", *words])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.out, captured.err

    return run


TWO = ("says.yaml", "--sweep", "tail=!,?", "--records", "d.jsonl")


# -- answers --------------------------------------------------------------------------------------------------------------


def test_the_table_says_what_was_seen_and_what_was_not(bench, clock):
    """Percentiles with their number, ratios with their interval, shares that add up, and the reasons for what is not there."""
    clock.took = {"?": 0.02}
    code, out, err = bench(*TWO)
    assert code == 0
    for told in (
        "p50 (n=8)",
        "10.0 ms (9.9–10.1)",
        "2 (1.96–2.04)",
        "slower",
        "0.5 (0.4–0.6)",
        "say 7.50 ms 75% 15.0 ms 75%",
        "(scheduler) 2.50 ms 25% 5.00 ms 25%",
        "the whole 10.0 ms 20.0 ms",
        "3 records; 8 rounds in an order shuffled by the seed 0, stopped by 8 rounds; the first is c1",
        "warning: a lorry drove past",
        "c2: 1 of 3 records failed, and are in no figure: record 1 (says.yaml:5): no such word",
        "no p90: it needs 64 samples, and there are 8 (all cells)",
        "no start: no fresh process (c2)",
    ):
        assert told in " ".join(out.split()), told
    assert "p90 " not in out
    assert "measuring c1" in err


@pytest.mark.parametrize("columns", [60, 100, 160])
def test_the_table_fits_the_terminal(bench, monkeypatch, columns):
    """What does not fit beside goes below, with the name of the cell."""
    monkeypatch.setenv("COLUMNS", str(columns))
    out = bench(*TWO)[1].partition("where the time goes")[0]
    assert max(map(len, out.splitlines())) <= columns
    assert sum(line.startswith("c1 ") for line in out.splitlines()) >= (1 if columns == 160 else 2)


def test_json_is_one_document_after_its_schema(bench):
    """The same that goes into the file."""
    code, out, _ = bench(*TWO, "--json", "--out", "r.json")
    found = json.loads(out)
    assert code == 0
    jsonschema.validate(found, schema())
    assert found == json.loads(Path("r.json").read_text(encoding="utf-8"))
    assert json.loads(bench("--schema")[1]) == schema()
    assert (found["axes"], found["is_finished"]) == ({"graph": ["says.yaml"], "tail": ["!", "?"]}, True)


def test_quiet_tells_no_progress(bench):
    """Answers alone."""
    assert "measuring" not in bench(*TWO, "--quiet")[2]


def test_the_records_reach_the_cells_with_all_their_columns(bench, clock):
    """A cell takes its inputs; metrics take the others."""
    bench(*TWO, "--rounds", "3", "--seed", "7", "--cold", "0", "--budget", "5m", "--precision-target", "3%")
    ids, records, method, _ = clock.seen[0]
    assert (ids, records[2]) == (["c1", "c2"], {"word": "w2", "references": ["w2!"]})
    assert (method.rounds, method.seed, method.cold, method.budget_s, method.precision_target) == (3, 7, 0, 300, 0.03)


def test_what_fits_is_shown_without_measuring(bench, clock):
    """Nothing is imported that is heavy, and nothing runs."""
    code, out, _ = bench(*TWO, "--backend", "torch,abacus", "--check-only")
    assert (code, clock.seen) == (0, [])
    assert "2 of 4 cells do not fit:" in out
    assert "2 cells, backend abacus: same-cell" in out  # plain Python runs where it runs


def test_data_that_are_named_are_looked_at_by_a_check(bench):
    """A check that passes is one that the bench passes; data that are not there are told now."""
    code, out, err = bench("says.yaml", "--records", "nothing.jsonl", "--check-only")
    assert (code, out) == (1, "")
    assert "'nothing.jsonl' cannot be read" in err


# -- what does not work ---------------------------------------------------------------------------------------------------


def test_a_sweep_without_a_cell_that_fits_gives_1_and_all_reasons(bench, clock):
    """Grouped, on stderr; as JSON too."""
    words = ("says.yaml", "--sweep", "say.template={a},{b}", "--records", "d.jsonl")
    code, out, err = bench(*words)
    assert (code, out, clock.seen) == (1, "", [])
    assert "none of the 2 cells fits:" in err
    assert "says.yaml" in err
    code, out, _ = bench(*words, "--json")
    assert (code, json.loads(out)["error"]["cells"][0]["state"]) == (1, "pruned")


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ((), 2, "name a graph, or a sweep file"),
        (("says.yaml", "says.yaml"), 2, "'says.yaml' is named twice"),
        (
            ("says.yaml", "--backend", "torch,auto"),
            2,
            "--backend auto is whichever can answer yet; name those to compare, such as torch,onnx",
        ),
        (("says.yaml", "--sweep", "tail"), 2, "--sweep takes NAME=VALUE, found 'tail'"),
        (("says.yaml", "--sweep", "tail=a,a"), 2, "names 'a' twice"),
        (("says.yaml", "--sweep", "tail="), 2, "--sweep tail: found ''; wanted: values with a comma between them"),
        (("says.yaml", "--batch", "0"), 2, "batch: found '0'; wanted: a whole number, at least 1"),
        (("says.yaml", "--rounds", "few"), 2, "--rounds: found 'few'"),
        (("says.yaml", "--budget", "soon"), 2, "--budget: found 'soon'; wanted: a time such as 90s, 5m or 1h"),
        (("says.yaml", "--timeout", "x"), 2, "found 'x'; wanted: a time such as 90s, 5m or 1h"),
        (("says.yaml", "--precision-target", "300"), 2, "--precision-target: found '300'; wanted: a part"),
        (("says.yaml", "--fail-over", "x", "--compare", "a.json"), 2, "found 'x'; wanted: a part"),
        (("says.yaml", "--records", "d.jsonl", "--input", "word=x"), 2, "--records and --input are both given"),
        (("says.yaml", "--allow", "all"), 2, "--allow takes unused, found 'all'"),
        (("nowhere.yaml",), 1, "nowhere.yaml cannot be read"),
        (("says.yaml",), 1, "the graph takes word, but --input gives none; give --records FILE"),
        (("says.yaml", "--input", "wrd=x"), 1, "the graph has no input 'wrd'"),
        (
            ("says.yaml", "--records", "others.jsonl"),
            1,
            "the graph takes word, but the data 'others.jsonl' have wrd; add a column for each",
        ),
        (("says.yaml", "--records", "nowhere.jsonl"), 1, "the data 'nowhere.jsonl' cannot be read"),
        ((*TWO, "--metric", "wrd_f1"), 1, "there is no metric 'wrd_f1'"),
        ((*TWO, "--metric", "word_f1:references=answer"), 1, "the data have no column 'answer'; the columns: references, word"),
        ((*TWO, "--html", "nowhere/page.html"), 1, "output 'nowhere/page.html' cannot be written: there is no folder"),
        ((*TWO, "--html", "says.yaml"), 1, "output 'says.yaml' would replace a file that is no page; name another"),
        ((*TWO, "--html", "new", "--out", "./new"), 1, "output 'new' would replace the results 'new'; name another file"),
        ((*TWO, "--out", "."), 1, "output '.' is a folder"),
        ((*TWO, "--resume"), 1, "--resume goes on with the file of --out; name it"),
        ((*TWO, "--fail-over", "5%"), 1, "--fail-over looks at what moved since --compare OLD.json"),
        ((*TWO, "--compare", "d.jsonl"), 1, "'d.jsonl' is no JSON"),
        ((*TWO, "--out", "d.jsonl"), 1, "output 'd.jsonl' would replace a file that holds no results"),
    ],
)
def test_a_mistake_is_told_before_anything_is_measured(bench, clock, words, code, told):
    """In one message, and nothing is written."""
    Path("others.jsonl").write_text('{"wrd": "x"}\n', encoding="utf-8")
    before = {path: path.read_bytes() for path in Path().iterdir()}
    found, out, err = bench(*words)
    assert (found, out, clock.seen) == (code, "", [])
    assert told in " ".join(err.replace("│", " ").split())
    assert {path: path.read_bytes() for path in Path().iterdir()} == before


def test_data_without_a_record_that_can_be_read_are_told(bench):
    """And of others, what cannot be read is counted, and not run."""
    Path("bad.jsonl").write_text("[1]\n", encoding="utf-8")
    assert "hold no record that can be read: bad.jsonl:1" in bench("says.yaml", "--records", "bad.jsonl")[2]
    Path("half.jsonl").write_text('{"word": "a"}\n[1]\n', encoding="utf-8")
    out = bench("says.yaml", "--records", "half.jsonl")[1]
    assert "1 record; 8 rounds" in out
    assert "half.jsonl:2 is no record: found a list, wanted one record per line" in out


def test_a_cell_that_fails_gives_1_and_leaves_the_others(bench, clock):
    """With its reason beside their figures."""
    clock.failing = {"?"}
    code, out, _ = bench(*TWO)
    assert code == 1
    assert "c2 failed: say: it broke" in out
    assert "10.0 ms" in out


# -- stopped and gone on with ---------------------------------------------------------------------------------------------


def test_a_bench_that_is_stopped_keeps_what_it_has_and_goes_on(bench, clock):
    """Nothing is measured twice, nothing is lost."""
    clock.stops_at = 1
    code, _, err = bench(*TWO, "--out", "r.json")
    assert code == 130
    assert "what was measured of 1 cell is kept in r.json; --resume goes on with it" in err
    stopped = read_results(Path("r.json"))
    assert ([cell.state for cell in stopped.cells], stopped.is_finished) == (["measured", "unfinished"], False)
    clock.stops_at, clock.took = None, {"!": 7.0}
    assert "holds a bench that was stopped" in bench(*TWO, "--out", "r.json")[2]
    code, _, _ = bench(*TWO, "--out", "r.json", "--resume")
    found = read_results(Path("r.json"))
    assert (code, found.is_finished, [cell.state for cell in found.cells]) == (0, True, ["measured", "measured"])
    assert found.cells[0] == replace(stopped.cells[0])
    assert stopped.cells[0].key in clock.seen[-1][3]
    clock.seen.clear()
    code, out, err = bench(*TWO, "--out", "r.json", "--resume")
    assert (code, clock.seen) == (0, [])
    assert "r.json is finished: nothing is left to measure" in err
    assert "10.0 ms" in out


def test_what_is_known_of_every_cell_reaches_the_file_while_it_is_measured(bench, clock, monkeypatch):
    """A process may be killed at any moment: nobody waits for its end."""
    monkeypatch.setattr(running, "WRITTEN_EVERY_S", 0.01)
    states = []

    def look():
        for _ in range(1000):
            found = read_results(Path("r.json"))
            states[:] = [cell.state for cell in found.cells]
            if states == ["measured", "measured"]:
                assert not found.is_finished
                return
            time.sleep(0.01)

    clock.at_end = look
    assert bench(*TWO, "--out", "r.json")[0] == 0
    assert states == ["measured", "measured"]


@pytest.mark.parametrize(
    ("words", "change", "told"),
    [
        ((*TWO, "--rounds", "3"), None, "--rounds was 20, and is 3"),
        ((*TWO, "--seed", "3"), None, "--seed was 0, and is 3"),
        ((*TWO, "--precision-target", "3%"), None, "--precision-target was None, and is 0.03"),
        (("says.yaml", "--sweep", "tail=?,x", "--records", "d.jsonl"), None, "1 measured cells are not in this sweep: c1"),
        (
            TWO,
            lambda: Path("d.jsonl").write_text('{"word": "z"}\n', encoding="utf-8"),
            "the data were 3 records of d.jsonl, and are 1 others",
        ),
    ],
)
def test_another_bench_is_not_gone_on_with(bench, clock, words, change, told):
    """With everything that differs."""
    clock.stops_at = 1
    bench(*TWO, "--out", "r.json")
    before = Path("r.json").read_bytes()
    clock.stops_at = None
    if change is not None:
        change()
    code, _, err = bench(*words, "--out", "r.json", "--resume")
    assert code == 1
    assert "'r.json' is another bench, and cannot be gone on with:" in err
    assert told in err
    assert Path("r.json").read_bytes() == before


def test_other_versions_are_not_gone_on_with(bench, clock):
    """Figures of two releases do not stand in one table."""
    clock.stops_at = 1
    bench(*TWO, "--out", "r.json")
    before = read_results(Path("r.json"))
    older = replace(before.surroundings, versions={**before.surroundings.versions, "modelgraft": "0.0.1"})
    write_results(replace(before, surroundings=older), Path("r.json"))
    assert "modelgraft was 0.0.1, and is " in bench(*TWO, "--out", "r.json", "--resume")[2]


# -- compared -------------------------------------------------------------------------------------------------------------


def test_what_became_slower_beyond_its_interval_fails(bench, clock):
    """By more than is allowed, whatever the cells are called and in whatever order they stand."""
    bench(*TWO, "--out", "old.json")
    clock.took = {"?": 0.0108}
    words = ("says.yaml", "--sweep", "tail=?,!", "--records", "d.jsonl", "--compare", "old.json")
    code, out, err = bench(*words, "--fail-over", "5%")
    assert code == 1
    assert "since then: 2 cells in both, 0 new, 0 gone" in out
    assert "c1 wall time 10.0 ms 10.8 ms 1.08 (1.06–1.1) worse" in " ".join(out.split())
    assert "c1: wall time became 8.0% worse, more than --fail-over 0.05" in err
    assert bench(*words, "--fail-over", "10%")[0] == 0
    assert json.loads(bench(*words, "--json")[1])["comparison"]["cells"][0]["moved"][0]["is_worse"] is True


def test_results_of_another_schema_are_told_in_one_sentence(bench, clock):
    """Before anything is measured."""
    bench(*TWO, "--out", "old.json")
    Path("old.json").write_text(Path("old.json").read_text(encoding="utf-8").replace('"version": 1', '"version": 7', 1), encoding="utf-8")
    clock.seen.clear()
    code, out, err = bench(*TWO, "--compare", "old.json")
    assert (code, out, clock.seen) == (1, "", [])
    assert err == "error: 'old.json' holds results of schema version 7; this release reads version 1: read it with a newer release\n"


def test_results_do_not_replace_those_that_they_are_compared_with(bench, clock):
    """Under no name."""
    bench(*TWO, "--out", "old.json")
    code, _, err = bench(*TWO, "--compare", "old.json", "--out", "./old.json")
    assert code == 1
    assert "would replace the older results" in err


def test_a_comparison_without_a_common_cell_fails_where_something_may_not_fall(bench, clock):
    """Else a gate stays green for ever after the sweep was changed; without a gate it is told alone."""
    bench(*TWO, "--out", "old.json")
    others = ("says.yaml", "--sweep", "tail=a,b", "--records", "d.jsonl", "--compare", "old.json")
    assert bench(*others)[0] == 0
    code, _, err = bench(*others, "--fail-over", "5%")
    assert code == 1
    assert "no cell is in old.json as well, so that --fail-over has nothing to look at" in err


def test_a_page_that_cannot_be_written_any_more_takes_no_figures_with_it(bench, clock):
    """Its folder went while cells were measured: the table is there, then the error, and the exit code says it."""
    Path("pages").mkdir()
    assert bench(*TWO, "--html", "pages/p.html")[0] == 0
    assert bench(*TWO, "--html", "pages/p.html")[0] == 0  # a page is replaced by a newer one
    clock.at_end = lambda: (Path("pages/p.html").unlink(), Path("pages").rmdir())
    code, out, err = bench(*TWO, "--html", "pages/p.html")
    assert (code, "over the first" in out) == (1, True)
    assert "error: output 'pages/p.html' cannot be written: there is no folder 'pages'" in err


def test_a_ratio_without_an_interval_has_no_verdict(bench, clock):
    """Of a few rounds: neither that there is a difference, nor that there is none."""
    measured = clock.measured

    def bare(cell, number):
        found = measured(cell, number)
        return replace(found, ratio=replace(found.ratio, wall=Spread(value=1.0)))

    clock.measured = bare
    _, out, _ = bench(*TWO)
    assert "too few rounds for a verdict" in out
    assert "no difference seen" not in out


def test_the_time_that_a_cell_may_take_is_asked_for(bench, clock):
    """The message about a cell that took longer names the option."""
    bench(*TWO, "--timeout", "4s")
    assert clock.timeout_s == pytest.approx(4)


# -- with the real stopwatch ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_bench_of_two_templates_from_the_first_word_to_the_page(tmp_path, monkeypatch, capsys):
    """Processes, rounds, metrics, file, page, and the same once more beside it."""
    monkeypatch.chdir(tmp_path)
    Path("says.yaml").write_text(SAYS, encoding="utf-8")
    rows = [{"word": f"w{number}", "references": f"w{number}!" if number % 3 else "no"} for number in range(9)]
    Path("d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    words = ["bench", "says.yaml", "--sweep", "tail=!,x", "--records", "d.jsonl", "--metric", "exact_match", "--rounds", "7", "--cold", "0"]
    assert main([*words, "--out", "r.json", "--html", "r.html"]) == 0
    found = read_results(Path("r.json"))
    assert [cell.state for cell in found.cells] == ["measured", "measured"]
    assert [len(cell.samples) for cell in found.cells] == [7, 7]
    assert [cell.quality[0].value for cell in found.cells] == [pytest.approx(6 / 9), 0]
    assert found.cells[1].agreement == 0
    for cell in found.cells:
        assert sum(cell.shares.nodes.values()) + sum(cell.shares.rest.values()) == cell.shares.wall_s
    assert Path("r.html").stat().st_size < 150_000
    capsys.readouterr()
    assert main([*words, "--compare", "r.json", "--json"]) == 0
    comparison = json.loads(capsys.readouterr().out)["comparison"]
    assert [cell["id"] for cell in comparison["cells"]] == ["c1", "c2"]
