"""An error is told once, in one line, in our own words: in Python, in a pipe, on a terminal, and as JSON."""

from __future__ import annotations

import io
import json
import re
import sys
import time

import pytest

import modelgraft as mg
from modelgraft.cli import main
from support.running import TEXT, document, function, graph_of, registry_of

SENTENCE = "the prompt has 40 tokens, and 30 are left"
CLASSES = re.compile(r"\b(InputError|NodeError|PluginError|SourceError|GraphError|NodeTimeout|Cancelled|ModelgraftError)\b")


def refuse(x):
    raise mg.InputError(SENTENCE)


def refuse_by_name(x):
    raise mg.InputError(f"a: {SENTENCE}")


def refuse_field(x):
    raise mg.InputError(f"a.prompt: {SENTENCE}")


def complain(x):
    raise mg.NodeError(SENTENCE, node="a")


def break_contract(x):
    raise mg.PluginError(SENTENCE)


def fail(x):
    raise ValueError(SENTENCE)


def linger(x):
    time.sleep(0.3)
    return x


# What a node does, how the one line begins, and what kind of error it is.
CASES = {
    "an input that a node refuses": (refuse, f"a (toy.yaml:4): {SENTENCE}", "InputError"),
    "one that names the node itself": (refuse_by_name, f"a (toy.yaml:4): {SENTENCE}", "InputError"),
    "one that names a field of the node": (refuse_field, f"a.prompt: {SENTENCE}", "InputError"),
    "an error of a node": (complain, SENTENCE, "NodeError"),
    "a broken contract": (break_contract, SENTENCE, "PluginError"),
    "an error of a plugin": (fail, f"node 'a' (toy/odd, plugin 'toy') failed: ValueError: {SENTENCE}", "NodeError"),
    "a limit": (linger, "node 'a' (toy/odd) took longer than its limit of 0.1 s", "NodeTimeout"),
}


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


@pytest.fixture(params=CASES)
def case(request, tmp_path, monkeypatch):
    """A graph in the folder whose node does that; gives the line and the kind."""
    body, line, kind = CASES[request.param]
    registry = registry_of(function("toy/odd", TEXT, {"out": "text"}, body))
    text = "modelgraft: 1\ninputs: {x: text}\nnodes:\n  a: {use: toy/odd, in: {x: inputs.x}}\noutputs: {out: a}\n"
    (tmp_path / "toy.yaml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("modelgraft.installed.discovery.discover", lambda **_: registry)
    return line, kind


def words(line: str) -> tuple[str, ...]:
    """The command, with a limit where that is what is told."""
    return ("run", "toy.yaml", "--input", "x=p", *(("--timeout", "0.1") if "limit" in line else ()))


def test_in_a_pipe(case, capsys):
    """One line that begins with `error:`, without a class in front of our sentence, and nothing of it elsewhere."""
    line, _ = case
    assert main(words(line)) == 1
    captured = capsys.readouterr()
    told = [each for each in captured.err.splitlines() if line in each]
    assert told == [f"error: {line}"]
    assert captured.out == ""
    assert not CLASSES.search(captured.err)
    assert captured.err.count(line) == 1


def test_on_a_terminal(case, monkeypatch):
    """The same beside the view of the nodes at work."""
    line, _ = case
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert main(words(line)) == 1
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    assert shown.count(line) == 1
    assert f"error: {line}" in shown
    assert not CLASSES.search(shown)


def test_as_json(case, capsys):
    """One document on stdout with the sentence, its kind, and where it happened; nothing on stderr."""
    line, kind = case
    assert main((*words(line), "--json", "--quiet")) == 1
    captured = capsys.readouterr()
    error = json.loads(captured.out)["error"]
    assert (error["kind"], error["message"]) == (kind, line)
    assert line not in captured.err
    assert error.get("node", "a") == "a"
    assert (error.get("place", "").endswith("toy.yaml:4")) == (kind == "InputError")


def test_in_python(case, tmp_path):
    """The sentence is all that the error says; an input that a node refuses is an InputError with node, place and what was ready."""
    line, kind = case
    with mg.open(mg.load(tmp_path / "toy.yaml"), timeout_s=0.1 if "limit" in line else None) as pipeline:
        with pytest.raises(getattr(mg, kind)) as caught:
            pipeline.run(x="p")
        events = []
        with pytest.raises(getattr(mg, kind)):
            events.extend(iter(pipeline.stream(x="p")))
    assert str(caught.value) == line
    if isinstance(caught.value, mg.InputError):
        assert (caught.value.node, caught.value.component) == ("a", "toy/odd")
        assert caught.value.place.line == 4


def test_what_was_ready_comes_with_an_input_that_a_node_refuses(tmp_path):
    """As with any other error of a node, and in a map the other records live."""
    parts = [function("toy/shout", TEXT, {"out": "text"}, lambda x: [each.upper() for each in x])]

    def refuse_some(x):
        if "BAD" in x:
            raise mg.InputError(SENTENCE)
        return x

    parts.append(function("toy/odd", TEXT, {"out": "text"}, refuse_some))
    nodes = {"loud": {"use": "toy/shout", "in": {"x": "inputs.x"}}, "a": {"use": "toy/odd", "in": {"x": "loud"}}}
    graph = graph_of(registry_of(*parts), tmp_path, document(nodes, inputs=TEXT, outputs={"out": "a"}))
    with mg.open(graph) as pipeline:
        with pytest.raises(mg.InputError) as caught:
            pipeline.run(x="bad")
        assert caught.value.outputs == {"loud.out": ["BAD"]}
        good, bad = pipeline.map([{"x": "good"}, {"x": "bad"}])
    assert good["out"] == "GOOD"
    assert SENTENCE in str(bad.error)
    assert repr(bad) == f"<Result failed: {bad.error}>"
