"""Messages are worded for whoever reads them, and say what was meant by what was written."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

import modelgraft as mg
from modelgraft import Config, GraphError, component
from modelgraft.kernel.language.document import parse
from modelgraft.kernel.words.errors import InputError, NodeError, Place, Problem
from modelgraft.kernel.words.wording import for_python, option
from modelgraft.records.readers import at_command_line, for_command
from modelgraft_plugins import torch as torch_backend
from support.checkable import graph_of
from support.command import commands
from support.expanding import problems
from support.running import registry_of

ROOT = Path(__file__).parents[2]
FLAGS = re.compile(r"(?<![\w-])--(set|allow|init|fallback|offline|backend|device|dtype|precision|seed|cache|timeout)\b")


@pytest.mark.parametrize(
    ("marked", "command", "python"),
    [
        (option("set", "n=..."), "--set n=...", 'params={"n": ...}'),
        (option("set", "nodes.a.with.n"), "--set nodes.a.with.n", 'params["nodes.a.with.n"]'),
        (option("allow", "unused"), "--allow unused", 'allow=["unused"]'),
        (option("init", "random"), "--init random", 'init="random"'),
        (option("offline"), "--offline", "offline=True"),
        ("nothing to word: ${n} {x}", "nothing to word: ${n} {x}", "nothing to word: ${n} {x}"),
    ],
)
def test_an_option_is_worded_for_who_reads_it(marked, command, python):
    text = f"do this: {marked}, or that"
    assert (for_command(text), for_python(text)) == (f"do this: {command}, or that", f"do this: {python}, or that")


def test_errors_word_themselves_for_python_and_keep_what_was_written():
    """Also through another message, and in every field of a problem."""
    inner = InputError(f"no: {option('device', 'cpu')}")
    assert str(inner) == 'no: device="cpu"'
    outer = NodeError(f"node 'a' failed: {inner.unworded}", node="a")
    assert (str(outer), for_command(outer.unworded)) == ("node 'a' failed: no: device=\"cpu\"", "node 'a' failed: no: --device cpu")
    error = GraphError(Problem("code", "found", Place(option("set", "n")), f"try {option('init', 'random')}"))
    (told,) = error.problems
    assert (told.hint, str(told.place), told.as_json()["file"]) == ('try init="random"', 'params["n"]', 'params["n"]')
    assert str(error) == 'params["n"]  code  found\n    try init="random"'


def test_what_python_hears_of_params_names_arguments(tmp_path):
    text = "params: {n: {type: int}}\nnodes: {a: {use: t/a, with: {n: '${n}'}}}\noutputs: {y: a}\n"
    assert [p.hint for p in problems(tmp_path, text)] == ['set it: params={"n": ...}, or give it a default']
    assert [str(p.place) for p in problems(tmp_path, text, params={"n": "three"})] == ['params["n"]']


def test_the_command_hears_of_its_flags(monkeypatch, tmp_path, capsys):
    """The same two problems, as text and as JSON; and the rows of `explain`."""
    run = commands(monkeypatch, tmp_path, capsys)
    text = "modelgraft: 1\nparams: {n: {type: int}}\ninputs: {x: text}\n"
    text += "nodes: {a: {use: toy/join, with: {separator: '${n}'}, in: {left: inputs.x, right: inputs.x}}}\noutputs: {y: a}\n"
    (tmp_path / "a.yaml").write_text(text)
    assert "set it: --set n=..., or give it a default" in run("check", "a.yaml")[1]
    assert '"file": "--set n"' in run("check", "a.yaml", "--json", "--set", "n=three")[1]
    assert "--set nodes.a.with.separator" in run("explain", "a.yaml", "a.separator", "--set", "n=3", "--set", "nodes.a.with.separator=x")[1]


def texts_of(path):
    """The string constants of a module, without its docstrings and the flags that an option is declared with; none where none is named."""
    text = path.read_text()
    nodes = list(ast.walk(ast.parse(text))) if FLAGS.search(text) else []
    documents = {id(node.value) for node in nodes if isinstance(node, ast.Expr) or (isinstance(node, ast.keyword) and node.arg == "flag")}
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents]


def test_no_message_of_the_core_or_a_plugin_names_a_flag():
    """Options are named by `option`, so that both faces can word them; what only the command line says lies in `cli`, or in a plugin
    that is a command and nothing else."""
    allowed = ("document.py", "overlay.py", "wording.py")  # the schema on params; the name of what was typed; the words themselves
    paths = [path for part in ("core", "plugins") for path in (ROOT / part).rglob("*.py") if not {"cli", "benching"} & {*path.parts}]
    assert len(paths) > 100
    assert [f"{path.name}: {text}" for path in paths if path.name not in allowed for text in texts_of(path) if FLAGS.search(text)] == []


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("a: {use: t/a, from: ${n}}", 'quote it: inside braces and brackets write "${n}" with its quotes'),
        ("a: {use: t/a, from: ${n}#part, in: {x: y}}", 'quote it: inside braces and brackets write "${n}#part" with its quotes'),
        ("a: [1, ${n}]", 'quote it: inside braces and brackets write "${n}" with its quotes'),
        ('a: {text: "${n}", n:${n}}', 'quote it: inside braces and brackets write "${n}" with its quotes'),
        ("a: {\n  size: 3,\n  n: ${n},\n  more: 1}", 'quote it: inside braces and brackets write "${n}" with its quotes'),
        ("a: {x:qf}", "a space is missing after the colon: write x: qf"),
        ("a: {x: y, in:inputs.x}", "a space is missing after the colon: write in: inputs.x"),
        ("a:{x: qf}", "a space is missing after the colon: write a: {...}"),
        ("a: b\nc:d", "a space is missing after the colon: write c: d"),
    ],
)
def test_slips_in_yaml_are_told_by_what_was_meant(line, hint):
    with pytest.raises(GraphError) as caught:
        parse(f"modelgraft: 1\n{line}\n", path=Path("a.yaml"))
    assert caught.value.problems[-1].hint.startswith(hint)


@pytest.mark.parametrize(
    "line", ['a: {"x:y": 1, url: http://a.b/c}', "a: {x: '{x:7}', y: \"${n}\"}", "a: ${n}", 'a: {"x:y": ~}', "a: {http://a.b: }"]
)
def test_what_is_meant_so_is_no_slip(line):
    assert parse(f"modelgraft: 1\n{line}\n", path=Path("a.yaml")).root.value["a"]


@pytest.mark.parametrize(("text", "found"), [("outputs: y:a", "outputs"), ("outputs: {y: a}\nnodes: {a: {use: t/a, in: x:y}}", "a.in")])
def test_a_word_where_a_mapping_is_wanted_may_lack_a_space(tmp_path, text, found):
    (told,) = [p for p in problems(tmp_path, text + "\nnodes.b: {use: t/b}\n") if p.code == "wrong-type"]
    assert told.found.startswith(f"{found} is the text")
    assert told.hint.startswith("a space is missing after the colon: write ")


def test_a_missing_wire_proposes_the_inputs_of_the_graph_that_nothing_reads_first():
    """Of the type that is wanted; those that something reads come after them, then nodes. A port of the same name wins among equals."""
    text = """
    modelgraft: 1
    inputs: {left: text, caption: text, question: text, image: image}
    nodes:
      start: {use: toy/join, in: {left: inputs.left}}
      end: {use: toy/join, in: {right: start}}
    outputs: {y: end}
    """
    with pytest.raises(GraphError) as caught:
        mg.check(graph_of(text))
    assert caught.value.problems[0].hint == (
        "wire it: in: {left: inputs.caption}; inputs.question, inputs.left, start.text would fit as well"
    )


@component("t/mood", kind="preprocess", inputs={"x": "text"}, outputs={"y": "text"}, load="test_wording_code:load")
class Mood(Config):
    """Answer with what was said."""

    temper: str = ""

    @classmethod
    def unheeded(cls, source):
        return [("it states a temper", "take it out", "")]


def test_what_a_run_tells_is_worded_for_who_opened_the_pipeline(tmp_path, monkeypatch):
    """Results, events, `load` and Python's warnings; no mark of an option is left in any."""
    code = ModuleType("test_wording_code")
    code.load = lambda config, context: lambda x: x
    monkeypatch.setitem(sys.modules, "test_wording_code", code)
    (tmp_path / "config.json").write_text("{}")
    node = '{use: t/mood, from: "${model}", in: {x: inputs.x}}'
    text = f"modelgraft: 1\nparams: {{model: x}}\ninputs: {{x: text}}\nnodes: {{a: {node}}}\noutputs: {{y: a}}\n"
    (tmp_path / "a.yaml").write_text(text)
    graph = mg.load(
        tmp_path / "a.yaml", params={"model": str(tmp_path)}, registry=registry_of(Mood, register_backends=torch_backend.register_backends)
    )

    def told():
        with mg.open(graph) as pipeline:
            events = [event.facts["text"] for event in pipeline.stream(x="word") if event.kind == "warning"]
            return {*events, *pipeline.run(x="word").warnings, *pipeline.load()}

    with pytest.warns(mg.ModelgraftWarning, match=r'params\["model"\]'):
        (python,) = told()
    with at_command_line(), pytest.warns(mg.ModelgraftWarning, match="--set model"):
        (command,) = told()
    assert python.replace('params["model"]', "--set model") == command
