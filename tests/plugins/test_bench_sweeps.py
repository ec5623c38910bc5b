"""Sweeps: names, files and the cells that they span; what does not fit is told, what means nothing refused."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

import modelgraft as mg
from modelgraft.cli import main
from modelgraft.commands import DocumentError
from modelgraft.installed.discovery import discover
from modelgraft_plugins.benching import words
from modelgraft_plugins.benching.asking import USUAL_METHOD
from modelgraft_plugins.benching.checking import check_cells
from modelgraft_plugins.benching.naming import key_of
from modelgraft_plugins.benching.pruned import among, grouped
from modelgraft_plugins.benching.results import Cell, Reason
from modelgraft_plugins.benching.sweep_files import sweep_in
from modelgraft_plugins.benching.sweeps import Sweep, ordered, simple_axis

ROOT = Path(__file__).parents[2]
SAYS = """modelgraft: 1
params: {tail: "!", say_params: 3}
inputs: {word: text}
nodes:
  say:  {use: text/template, with: {template: "{word}${tail}"}, in: {word: inputs.word}}
  tail: {use: text/template, with: {template: "{text}"}, in: {text: say}}
outputs: {text: tail.text}
"""


def quiet(done, of):
    """Hears how far the check is."""


@cache
def registry():
    return discover()


def checked(sweep, registry=registry):
    return check_cells(sweep, registry(), offline=True, tell=quiet)


@pytest.fixture
def says(tmp_path, monkeypatch):
    """A graph of two nodes in an empty folder, where two cells differ in one letter."""
    monkeypatch.chdir(tmp_path)
    Path("says.yaml").write_text(SAYS.replace(", say_params: 3", ""), encoding="utf-8")
    return tmp_path


# -- names ----------------------------------------------------------------------------------------------------------------

LOOK = """modelgraft: 1
params: {size: 5, eye: x}
inputs: {image: image}
nodes:
  pixels: {use: vision/preprocess, in: {image: inputs.image}}
  sight:  {use: vision/encoder, from: "preset:vit-b-16", in: {pixels: pixels}}
  bridge: {use: projector/linear, in: {x: sight.tokens}}
  second: {use: projector/linear, in: {x: bridge}}
outputs: {y: second}
"""


@pytest.mark.parametrize(
    ("name", "value", "key"),
    [
        ("backend", "onnx", "backend"),
        ("size", "6", "size"),
        ("eye", "preset:vit-b-16", "eye"),
        ("nodes.sight.with.layer", "2", "nodes.sight.with.layer"),
        ("runtime.dtype", "bfloat16", "runtime.dtype"),
        ("sight", "preset:siglip-so400m-14-384", "nodes.sight.from"),
        ("bridge", "projector/mlp", "nodes.bridge.use"),
        ("bridge", "graph:./other.yaml", "nodes.bridge.use"),
        ("encoder", "preset:siglip-so400m-14-384", "encoder"),
        ("sight.layer", "2", "nodes.sight.with.layer"),
        ("sight.from", "x", "nodes.sight.from"),
        ("sight.runtime.device", "cpu", "nodes.sight.runtime.device"),
        ("patch_size", "8", None),
        ("image_size", "32", "nodes.sight.with.image_size"),
    ],
)
def test_a_short_name_means_a_param_before_a_node_before_a_setting(name, value, key, tmp_path):
    """A node its component, where the value is one, and else its source; a setting where exactly one node has it."""
    (tmp_path / "look.yaml").write_text(LOOK, encoding="utf-8")
    graph = mg.load(tmp_path / "look.yaml", allow=("unused",))
    if key is None:
        with pytest.raises(
            mg.InputError, match=r"'patch_size', which 2 nodes of the graph look have; say which: pixels\.patch_size, sight\."
        ):
            key_of(name, value, graph)
    else:
        assert key_of(name, value, graph) == key


def test_a_name_that_means_nothing_is_told_with_what_there_is(says):
    """And with the nearest."""
    with pytest.raises(mg.InputError, match=r"names 'sai', but the graph says has .* the nodes say, tail\. Did you mean 'say'\?"):
        checked(Sweep(graphs=("says.yaml",), axes=(simple_axis("sai", ["a", "b"]),)))


def test_a_key_that_is_set_twice_is_refused(says):
    """By two axes, or by an axis and for all cells."""
    twice = (simple_axis("say.template", ["{word}a"]), simple_axis("nodes.say.with.template", ["{word}b"]))
    with pytest.raises(mg.InputError, match=r"sets nodes\.say\.with\.template twice: by 'say\.template', and by 'nodes\.say"):
        checked(Sweep(graphs=("says.yaml",), axes=twice))
    with pytest.raises(mg.InputError, match="for all cells"):
        checked(Sweep(graphs=("says.yaml",), axes=(simple_axis("tail", ["a"]),), settings={"tail": "b"}))


def test_more_cells_than_anybody_waits_for_are_refused(says):
    """Before the first is looked at."""
    axes = tuple(simple_axis(name, [str(number) for number in range(1, 101)]) for name in ("tail", "batch", "threads"))
    with pytest.raises(mg.InputError, match=r"spans 1,000,000 cells \(1 graph x 100 tail x 100 batch x 100 threads\)"):
        checked(Sweep(graphs=("says.yaml",), axes=axes))


def test_an_axis_that_is_given_twice_or_called_graph_is_refused():
    """The graphs are an axis already."""
    with pytest.raises(mg.InputError, match="the axis 'a' is given twice"):
        ordered([simple_axis("a", ["1"]), simple_axis("a", ["2"])])
    with pytest.raises(mg.InputError, match="cannot be called 'graph'"):
        ordered([simple_axis("graph", ["1"])])


# -- cells ----------------------------------------------------------------------------------------------------------------


def test_the_matrix_has_every_cell_once_with_the_line_that_measures_it_alone(says):
    """The last axis varies fastest; how it is run comes behind what it is."""
    axes = ordered([simple_axis("batch", ["1", "8"]), simple_axis("tail", ["?", "it's", "5"])])
    found = checked(Sweep(graphs=("says.yaml",), axes=axes, records="d.jsonl", metrics=("exact_match",), method=USUAL_METHOD))
    assert [(cell.values["tail"], cell.batch) for cell in found.fitting] == [(tail, size) for tail in ("?", "it's", 5) for size in (1, 8)]
    assert len({cell.key for cell in found.fitting}) == 6
    assert found.fitting[1].command == "modelgraft bench says.yaml --set 'tail=?' --batch 8 --records d.jsonl --metric exact_match"
    assert "--set 'tail=it'\"'\"'s'" in found.fitting[2].command


def test_a_key_says_what_a_cell_means_not_how_it_was_asked_for(says):
    """Swept or set, under whatever name; another value is another cell."""
    swept = checked(Sweep(graphs=("says.yaml",), axes=(simple_axis("tail", ["a", "b"]),)))
    alone = checked(Sweep(graphs=("says.yaml",), settings={"tail": "b"}))
    dotted = checked(Sweep(graphs=("says.yaml",), axes=(simple_axis("say.template", ['"{word}b"']),)))
    assert alone.fitting[0].key == swept.fitting[1].key == dotted.fitting[0].key
    assert swept.fitting[0].key != swept.fitting[1].key


def test_a_setting_that_is_written_out_as_its_default_is_the_same_cell(tmp_path):
    """Silence and its meaning have one key; but not where a source said something else."""
    (tmp_path / "look.yaml").write_text(LOOK.replace("params: {size: 5, eye: x}\n", ""), encoding="utf-8")
    graph = str(tmp_path / "look.yaml")
    plain, said, other = (
        checked(
            Sweep(
                graphs=(graph,),
                options={"init": "random"},
                settings={"nodes.bridge.with.out_features": "7", "nodes.second.with.out_features": "5", **more},
            )
        )
        .fitting[0]
        .key
        for more in ({}, {"nodes.bridge.with.bias": "true"}, {"nodes.bridge.with.bias": "false"})
    )
    assert plain == said
    assert plain != other


def test_a_cell_that_means_the_same_as_another_is_told_and_measured_once(says):
    """An axis that changes nothing is a mistake."""
    found = checked(Sweep(graphs=("says.yaml",), axes=(simple_axis("say.template", ["{word}x", '"{word}x"']),)))
    assert ([cell.id for cell in found.fitting], [cell.reasons[0].code for cell in found.pruned]) == (["c1"], ["same-cell"])
    assert "means the same as c1" in found.pruned[0].reasons[0].text


def test_a_graph_that_lacks_an_axis_is_left_out_beside_one_that_has_it(says):
    """With the reason; without any that has it the bench is refused."""
    Path("other.yaml").write_text(SAYS.replace('params: {tail: "!", say_params: 3}\n', "").replace("${tail}", "."), encoding="utf-8")
    sweep = Sweep(graphs=("says.yaml", "other.yaml"), axes=(simple_axis("say.template", ['"{word}a"']),))
    assert len(checked(sweep).fitting) == 2
    found = checked(Sweep(graphs=("other.yaml", "says.yaml"), axes=(simple_axis("tail", ["x", "y"]),)))
    assert {cell.graph for cell in found.fitting} == {"says.yaml"}


def test_what_a_run_would_refuse_is_pruned_before(tmp_path):
    """Too little memory, parts that cannot be exported, weights that are not there, a precision that nobody has."""
    (tmp_path / "look.yaml").write_text(LOOK.replace("params: {size: 5, eye: x}\n", ""), encoding="utf-8")
    wide = {"nodes.bridge.with.out_features": "7", "nodes.second.with.out_features": "5"}

    def reasons(*axes, **options):
        found = checked(Sweep(graphs=(str(tmp_path / "look.yaml"),), settings=wide, axes=axes, options=options))
        return {reason.code for cell in found.pruned for reason in cell.reasons}

    assert reasons(init="random") == set()
    assert reasons() == {"no-weights"}
    assert reasons(init="random", max_memory="1MB") == {"too-little-memory"}
    assert reasons(simple_axis("precision", ["int8"]), simple_axis("backend", ["torch"]), init="random") == {"wrong-option"}
    assert reasons(simple_axis("backend", ["abacus"]), init="random") == {"plugin"}


def test_a_part_that_cannot_be_exported_is_pruned_where_only_exports_run(tmp_path):
    """Unless it may stay on torch."""
    there = registry()
    linear = replace(there.components["projector/linear"], exportable=False)
    unlike = replace(there, components={**there.components, "projector/linear": linear})
    (tmp_path / "look.yaml").write_text(LOOK.replace("params: {size: 5, eye: x}\n", ""), encoding="utf-8")
    wide = {"nodes.bridge.with.out_features": "7", "nodes.second.with.out_features": "5"}
    axes = (simple_axis("backend", ["torch", "onnx"]),)
    sweep = Sweep(graphs=(str(tmp_path / "look.yaml"),), settings=wide, axes=axes, options={"init": "random"})
    found = checked(sweep, lambda: unlike)
    assert [cell.backend for cell in found.fitting] == ["torch"]
    assert [reason.code for reason in found.pruned[0].reasons] == ["not-exportable", "not-exportable"]
    assert "bridge: projector/linear cannot be exported, and onnx runs exports alone" in found.pruned[0].reasons[0].text
    assert len(checked(replace(sweep, options={"init": "random", "fallback": "torch"}), lambda: unlike).fitting) == 2


def test_the_line_of_a_cell_means_that_cell(says, capsys):
    """Given to the command, it is the one cell, with the same key: also with texts that look like numbers, and quotes."""
    axes = (simple_axis("tail", [words.Text("5"), "it's", "a b"]), simple_axis("threads", ["2"]))
    for cell in checked(Sweep(graphs=("says.yaml",), axes=axes, inputs=(("word", "x y"),), method=replace(USUAL_METHOD, seed=3))).fitting:
        assert main([*shlex.split(cell.command)[1:], "--check-only", "--json"]) == 0
        (found,) = json.loads(capsys.readouterr().out)["cells"]
        assert (found["key"], found["command"]) == (cell.key, cell.command)


# -- sweep files ----------------------------------------------------------------------------------------------------------


def written(folder, text):
    (folder / "s.yaml").write_text(text, encoding="utf-8")
    return sweep_in("s.yaml")


def test_a_sweep_file_says_what_the_command_line_says(says):
    """Values, variants that set several things, files beside it, and how it is measured."""
    Path("inner").mkdir()
    Path("inner/s.yaml").write_text(
        """sweep: 1
graphs: [../says.yaml, describe]
set: {tail: "5"}
axes:
  say:
    loud:  {say.template: "{word}!", batch: 4}
    quiet: {nodes.say: {with: {template: "./x"}}}
  threads: [1, 2]
records: d.jsonl
metrics: exact_match
method: {rounds: 3, budget: 5m, cold: 0, precision_target: 3%}
init: random
""",
        encoding="utf-8",
    )
    found = sweep_in("inner/s.yaml")
    assert list(found.graphs) == ["./says.yaml", "describe"]
    assert found.settings == {"tail": "5"}
    assert [dict(point.sets) for point in found.axes[0].points] == [
        {"say.template": "{word}!", "batch": 4},
        {"nodes.say.with.template": "./inner/x"},
    ]
    assert (found.axes[0].place, found.axes[1].points[1].label) == ("inner/s.yaml:5", 2)
    assert (found.records, found.metrics, found.options) == ("./inner/d.jsonl", ("exact_match",), {"init": "random"})
    assert (found.method.rounds, found.method.budget_s, found.method.cold, found.method.precision_target) == (3, 300, 0, 0.03)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("sweep: 2\ngraphs: [a]\n", "s.yaml:1  unknown-version"),
        ("sweep: 1\n", "missing-key  the sweep names no graphs"),
        ("sweep: 1\ngraphs: [a]\naxis: {}\n", "s.yaml:3  unknown-key  'axis' is no key of a sweep"),
        ("sweep: 1\ngraphs: [a]\naxes: {x: 3}\n", "s.yaml:3  wrong-type  the axis 'x' is the number 3; wanted a list"),
        ("sweep: 1\ngraphs: [a]\naxes: {x: []}\n", "the axis 'x' has no values"),
        ("sweep: 1\ngraphs: [a]\naxes:\n  x:\n    - 1\n    - 1\n", "s.yaml:6  wrong-value  the axis 'x' has the number 1 twice"),
        ("sweep: 1\ngraphs: [a]\naxes: {batch: [none]}\n", "axes.batch: found 'none'; wanted: a whole number"),
        ("sweep: 1\ngraphs: [a]\nmethod:\n  rounds: 2\n  round: 3\n", "s.yaml:5  unknown-key  'round' is no key of method"),
        ('sweep: 1\ngraphs: [a]\nmethod: {share_upstream: "no"}\n', "share_upstream: found 'no'; wanted: true or false"),
        ("sweep: 1\ngraphs: [a]\nmethod: {budget: soon}\n", "budget: found 'soon'; wanted: a time"),
        ("sweep: 1\ngraphs: [a]\nrecords: d.jsonl\ninput: {x: y}\n", "s.yaml:4  wrong-value  records and input are both given"),
        ("sweep: 1\ngraphs: []\n", "s.yaml:2  missing-key  the sweep names no graphs"),
        ("sweep: 1\ngraphs: 3\n", "graphs is the number 3; wanted a text"),
        ("sweep: 1\ngraphs: [a]\nset: [a]\n", "set is a list; wanted a mapping"),
    ],
)
def test_a_mistake_in_a_sweep_file_has_its_line(says, text, told):
    """And every mistake is told at once."""
    with pytest.raises(DocumentError) as caught:
        written(says, text)
    assert told in str(caught.value)


def test_all_mistakes_of_a_sweep_file_are_told_together(says):
    """Three lines, three problems."""
    with pytest.raises(DocumentError) as caught:
        written(says, "sweep: 1\ngraphs: [a]\naxes: {x: 3}\nmethod: {round: 1}\nrecord: y\n")
    assert [problem.place.line for problem in caught.value.problems] == [5, 3, 4]


@pytest.mark.parametrize("text", ["modelgraft: 1\n", "- a\n", "x: [\n"])
def test_a_graph_is_no_sweep(says, text):
    """Nor is what cannot be read: as a graph it is told what is wrong."""
    assert written(says, text) is None
    assert sweep_in("describe") is None


@pytest.mark.parametrize("text", ["5", "true", "a", '"a"', "[x]"])
def test_a_text_of_a_file_stays_one(text, says):
    """For a param that takes texts, and for a setting that takes anything; its label is the text."""
    swept = simple_axis("tail", [words.Text(text)])
    (cell,) = checked(Sweep(graphs=("says.yaml",), axes=(swept,))).fitting
    assert mg.load("says.yaml", params=cell.params).params["tail"].value == cell.values["tail"] == text
    (cell,) = checked(Sweep(graphs=("says.yaml",), axes=(simple_axis("say.template", [words.Text(f"{text} {{word}}")]),))).fitting
    assert mg.load("says.yaml", params=cell.params, allow=("unused",)).nodes["say"].config["template"].value == f"{text} {{word}}"


# -- the sweep of tiny parts ----------------------------------------------------------------------------------------------


def test_of_144_tiny_compositions_half_fit_and_the_others_say_why(monkeypatch):
    """For the reasons for which real parts do not fit: widths, sizes, spaces, squares of patches, a context that is too short."""
    monkeypatch.chdir(ROOT)
    found = checked(sweep_in("benchmarks/sweeps/tiny_parts.yaml"))
    assert (len(found.fitting), len(found.pruned)) == (72, 72)
    by_eye = Counter((cell.values["eye"], code) for cell in found.pruned for code in {reason.code for reason in cell.reasons})
    assert by_eye["clip", "space-mismatch"] == by_eye["unsized", "dim-mismatch"] == 24
    queries = [cell for cell in found.pruned if cell.values["bridge"] == "queries" and cell.values["eye"] == "siglip"]
    assert {cell.values["tongue"] for cell in queries} == {"qwen2", "gpt2", "opt", "deep"}  # those that are not 48 wide
    assert {cell.values["eye"] for cell in found.pruned if cell.values["bridge"] == "folded"} >= {"vit", "clip"}  # a class token
    assert by_eye["large", "context-overflow"] == 2
    assert all(cell.parameters for cell in (one.planned for one in found.fitting))


def test_reasons_that_are_alike_are_told_once():
    """60 cells with one reason are one line, and what differs in sizes alone is one reason."""
    cells = [
        Cell(
            id=f"c{number}",
            key="",
            values={"eye": "ab"[number % 2], "tongue": number},
            command="",
            state="pruned",
            graph="g",
            reasons=(Reason(code="dim-mismatch", place="g.yaml:3", text=f"a gives {number}, but b takes 7: {number} is a.width"),),
        )
        for number in range(60)
    ]
    ((reason, alike, those),) = grouped(cells)
    assert (reason.text.partition(",")[0], alike, len(those)) == ("a gives 0", 60, 60)
    assert among(cells[::2], cells) == "eye a; tongue " + ", ".join(map(str, range(0, 60, 2)))
    assert among(cells, cells) == "whatever is swept"


def test_every_sweep_that_ships_can_be_read():
    """Their graphs are there."""
    for file in sorted((ROOT / "benchmarks/sweeps").glob("*.yaml")):
        sweep = sweep_in(str(file))
        assert sweep is not None
        for graph in sweep.graphs:
            mg.load(graph, allow=("unused",))


def test_parts_by_what_they_are_are_put_there_with_all_that_follows():
    """An eye brings its pictures, and a tongue the width of the projector: the cells are counted as the planner counts them."""
    axes = (simple_axis("eye", ["preset:clip-vit-b-16", "preset:siglip-so400m-14-384"]), simple_axis("tongue", ["preset:opt-2.7b"]))
    found = checked(Sweep(graphs=("llava",), axes=axes, options={"init": "random"}))
    assert found.pruned == []
    for cell in found.fitting:
        with pytest.warns(mg.ModelgraftWarning):
            graph = mg.load("llava", params={"eye": cell.values["eye"], "llm": "preset:opt-2.7b"})
        assert cell.planned.parameters == mg.plan(graph).totals.parameters
