"""`bench --choose`, from the words of the command to the graph that it writes; the figures are made."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from modelgraft.cli import main
from modelgraft_plugins.benching import choosing
from modelgraft_plugins.benching.files import read_results
from modelgraft_plugins.benching.measuring import Measured
from modelgraft_plugins.benching.results import Reason, Sample
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
