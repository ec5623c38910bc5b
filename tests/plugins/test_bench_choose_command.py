"""`bench --choose`, from the words of the command to the graph that it writes; the figures are made."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

import modelgraft as mg
from modelgraft.cli import main
from modelgraft.plugin import InputError
from modelgraft_plugins.benching import choosing
from modelgraft_plugins.benching.cells import WantedCell
from modelgraft_plugins.benching.choosing_trials import Placing, Trials, gates_of
from modelgraft_plugins.benching.choosing_wish import read_wish
from modelgraft_plugins.benching.files import read_results
from modelgraft_plugins.benching.measuring import Measured
from modelgraft_plugins.benching.results import Cell, Method, Reason, Sample
from modelgraft_plugins.benching.surroundings import surroundings

GRAPH = """# Two maps.
modelgraft: 1
inputs: {x: "float[batch tokens 8]"}
nodes:
  one: {use: projector/linear, with: {out_features: 8}, in: {x: inputs.x}}
  two: {use: projector/linear, with: {out_features: 8}, in: {x: one}}   # the last
outputs: {y: two}
"""
PLAIN = """
modelgraft: 1
inputs: {x: {type: text, default: a}}
nodes: {a: {use: text/template, with: {template: "{x}"}, in: {x: inputs.x}}}
outputs: {y: a}
"""
SECONDS = {"torch": 0.2, "compile": 0.15, "onnx": 0.1, "onnx int8": 0.05, "onnx w8": 0.3}
INPUT = ("--input", "x=[[[1, 2, 3, 4, 5, 6, 7, 8]]]", "--init", "random")


def made(cells, records, method, **_):
    """Figures by what a cell places: every node takes its time, 8-bit numbers are far from torch, compiled code fails in `two`."""
    found = []
    for cell in cells:
        ways = [
            " ".join(filter(None, (keys.get("backend", "torch"), keys.get("precision", ""))))
            for keys in (cell.placement.get(name, {}) for name in ("one", "two"))
        ]
        if ways[1] == "compile":
            found.append(replace(cell.planned, state="failed", reasons=[Reason(code="not-exportable", text="two cannot be compiled")]))
            continue
        wall = sum(SECONDS[way] for way in ways)
        samples = [Sample(round=number, records=1, wall_s=wall * (1 + number % 3 / 1000), cpu_s=wall) for number in range(8)]
        parity = {"y": 0.02 if "onnx int8" in ways else 0.0}
        found.append(replace(cell.planned, state="measured", samples=samples, p={"50": wall}, parity=parity))
    return Measured(cells=found, method=method, surroundings=surroundings(), baseline=cells[0].id)


@pytest.fixture
def bench(tmp_path, monkeypatch, capsys):
    """A function that runs the command beside the graph; it gives the exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(choosing, "measure", made)
    (tmp_path / "two.yaml").write_text(GRAPH, encoding="utf-8")

    def run(*words):
        code = main(["bench", "two.yaml", *INPUT, *words])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return code, said.out, said.err

    return run


def test_the_best_placement_is_written_into_the_graph_with_its_reason(bench, tmp_path):
    """The text stays as it was but for the block and the comment above it; the table tells all that was measured."""
    code, out, _ = bench("--choose", "p50 < 300ms, parity > 0.99")
    text = (tmp_path / "two.yaml").read_text(encoding="utf-8")
    said = text.removeprefix(GRAPH).splitlines()
    assert (code, text.startswith(GRAPH)) == (0, True)
    assert said[0].startswith("# placed by modelgraft bench --choose 'p50 < 300ms, parity > 0.99' on 20")
    assert "#   1 record of x=[[[1, 2, 3, 4, 5, 6, 7, 8]]]" in said
    assert "#   p50 200 ms, before 400 ms, 0.50 of it (95 % from 0.50 to 0.50, n=8)" in said
    assert "#   parity 1, before 1" in said
    assert said[-2:] == ["runtime:", "  backend: {one: onnx, two: onnx}"]
    assert "one on onnx float32, two on onnx float32  200 ms" in out
    assert "one on onnx int8 was left out: parity 0.98, wanted parity > 0.99" in out
    assert "two on compile was left out: two cannot be compiled" in out
    assert "written to two.yaml:" in out


def test_what_nothing_fulfils_changes_nothing(bench, tmp_path):
    """Exit code 1, with what came closest."""
    code, out, _ = bench("--choose", "p50 < 150ms, parity > 0.99")
    assert code == 1
    assert "no placement fulfils: p50 < 150ms, parity > 0.99, least p50" in out
    assert "closest is: one on onnx float32, two on onnx float32; nothing is written" in out
    assert (tmp_path / "two.yaml").read_text(encoding="utf-8") == GRAPH


def test_a_choice_goes_elsewhere_and_into_json(bench, tmp_path):
    """--choose-out leaves the graph alone; --json is one document; --out keeps every cell with the line that measures it."""
    code, out, _ = bench("--choose", "parity > 0.9", "--choose-out", "fast.yaml", "--json", "--out", "all.json")
    document = json.loads(out)
    assert (code, document["written"]) == (0, "fast.yaml")
    assert document["runtime"] == {name: {"backend": "onnx", "precision": "int8"} for name in ("one", "two")}
    assert (tmp_path / "two.yaml").read_text(encoding="utf-8") == GRAPH
    assert (tmp_path / "fast.yaml").read_text(encoding="utf-8").endswith("  precision: {one: int8, two: int8}\n")
    cells = {cell.id: cell for cell in read_results(tmp_path / "all.json").cells}
    assert "--set nodes.one.runtime.backend=onnx" in cells["one on onnx float32"].command
    assert cells["two on compile"].state == "failed"


REFUSED = [
    (("--choose", "p50 < 3"), "'p50 < 3' has no unit"),
    (("--choose", "p50 < 3s", "--backend", "onnx"), "--choose decides backend for each node: leave --backend out"),
    (("--choose", "p50 < 3s", "--batch", "1,2"), "--choose takes the graph as it stands, and batch has several values"),
    (("--choose", "p50 < 3s", "--out", "a.json", "--resume"), "leave --resume out"),
    (("--choose", "p50 < 3s", "--share-upstream"), "--choose looks at the time of the whole graph: leave --share-upstream out"),
    (("--choose", "p50 < 3s", "--choose-out", "nowhere/a.yaml"), "there is no folder 'nowhere'"),
    (("--choose-out", "a.yaml"), "--choose-out is where --choose writes"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED)
def test_what_cannot_be_chosen_by_is_told_before_anything_is_measured(bench, monkeypatch, words, message):
    """One sentence, and no measurement."""
    monkeypatch.setattr(choosing, "measure", None)
    code, _, err = bench(*words)
    assert code != 0
    assert message in err


def test_a_graph_of_plain_code_has_nothing_to_place(bench, tmp_path):
    """It is told, not measured."""
    (tmp_path / "two.yaml").write_text(PLAIN, encoding="utf-8")
    code, _, err = bench("--choose", "p50 < 3s")
    assert code != 0
    assert "two.yaml is plain code alone: there is nothing to place" in err


# -- placements as cells ---------------------------------------------------------------------------------------------------


def placing_of(folder, text=GRAPH):
    path = folder / "two.yaml"
    path.write_text(text, encoding="utf-8")
    planned = Cell(id="c1", key="k", values={}, command="", state="unfinished", graph=str(path))
    cell = WantedCell(id="c1", key="k", values={}, graph=str(path), command="", planned=planned, init="random")
    return Placing.of(cell, mg.load(path).spec.registry, offline=True)


def test_as_many_are_measured_at_once_as_fit_into_memory(tmp_path):
    """What is compared with stands in every call: torch first, where the graph is placed elsewhere, then the graph as it stands."""
    calls = []

    def measured(cells, method):
        calls.append([cell.id for cell in cells])
        return made(cells, [], method).cells

    placing = placing_of(tmp_path, GRAPH + "runtime: {backend: {two: onnx}}\n")
    wish = read_wish("parity > 0.9")
    trials = Trials(placing, wish, measured, Method(rounds=3, budget_s=90), records=1, most_bytes=1, tell=str)
    start, *others = trials([{"one": "compile"}, {"one": "onnx w8"}])
    assert calls == [["two on torch", "as it stands", "one on compile"], ["two on torch", "as it stands", "one on onnx w8"]]
    assert [(trial.placement, trial.start.placement) for trial in others] == [({"one": "compile"}, {}), ({"one": "onnx w8"}, {})]
    assert start.placement == {}


def test_only_what_the_wish_looks_at_is_measured(tmp_path):
    """Fresh processes for memory alone, enough rounds for a 90th percentile, a part of the budget for each phase."""
    found = []

    def measured(cells, method):
        found.append(method)
        return made(cells, [], method).cells

    for text in ("p50 < 3s", "memory < 3GB", "p90 < 3s"):
        trials = Trials(
            placing_of(tmp_path), read_wish(text), measured, Method(rounds=3, budget_s=90), records=4, most_bytes=10**9, tell=str
        )
        trials([])
    assert [(method.cold, method.rounds) for method in found] == [(0, 3), (1, 3), (0, 16)]
    assert all(22 < (method.budget_s or 0) < 23 for method in found)


def test_a_graph_that_cannot_be_measured_as_it_stands_is_told(tmp_path):
    """There is nothing to compare with."""

    def measured(cells, method):
        return [replace(cell.planned, state="failed", reasons=[Reason(code="died", text="it died")]) for cell in cells]

    trials = Trials(placing_of(tmp_path), read_wish("p50 < 3s"), measured, Method(rounds=3), records=1, most_bytes=10**9, tell=str)
    with pytest.raises(InputError, match=r"two\.yaml as it stands cannot be measured: it died"):
        trials([])


def test_parity_of_answers_without_numbers_is_that_of_the_gates(tmp_path):
    """Of torch it is whole; where nothing is kept of a gate, that is told."""
    placing = placing_of(tmp_path)
    assert gates_of(placing.plan_of({})) == (1.0, "parity is that of the gates of its parts: no output holds numbers")
    why = "no output holds numbers, and nothing is kept of how far one+two is from torch"
    assert gates_of(placing.plan_of({"one": "onnx int8", "two": "onnx int8"})) == (None, why)
