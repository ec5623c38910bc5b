"""The command line: answers on stdout, everything else on stderr, one message per mistake and never a traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import modelgraft
from modelgraft.cli import main
from modelgraft.cli.app import LATER
from support import toys
from support.command import commands


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Run a command in an empty folder with the toys alone; gives its exit code, stdout and stderr."""
    return commands(monkeypatch, tmp_path, capsys)


# -- check ----------------------------------------------------------------------------------------------------------------


def test_a_clean_graph_gives_one_line_and_0(run):
    """The line says what goes in and what comes out."""
    assert run("check", "capitals.yaml") == (0, "ok  capitals.yaml  1 node, text: text -> text: text\n", "")


def test_problems_of_several_graphs_are_told_together(run):
    """One bad graph does not hide another; the code is 1."""
    code, out, err = run("check", "wrong.yaml", "capitals.yaml", "nowhere.yaml")
    assert code == 1
    assert "wrong.yaml:4  unknown-component" in out
    assert "Did you mean 'toy/upper'?" in out
    assert "wrong.yaml:5  unknown-port" in out
    assert "ok  capitals.yaml" in out
    assert "nowhere.yaml cannot be read" in out
    assert err.endswith("in 2 of 3 graphs\n")


def test_check_as_json_is_one_document(run):
    """Problems carry code, file and line; nothing else is on stdout."""
    code, out, _ = run("check", "wrong.yaml", "capitals.yaml", "--json")
    found = json.loads(out)
    assert code == 1
    assert [graph["ok"] for graph in found["graphs"]] == [False, True]
    assert {(problem["code"], problem["line"]) for problem in found["graphs"][0]["problems"]} >= {
        ("unknown-component", 4),
        ("unknown-port", 5),
    }
    assert found["graphs"][1]["outputs"] == {"text": "text"}


# -- plan, show, explain, graphs, schema, components -------------------------------------------------------------------------


def test_plan_prints_a_row_per_node_and_the_totals(run):
    """Numbers to the unit, the place of each node, and the sizes that were solved."""
    code, out, _ = run("plan", "sight.yaml")
    rows = {line.split("  ")[0]: line for line in out.splitlines()}
    assert code == 0
    assert rows["eye"].split() == [
        "eye",
        "encoder",
        "toy/eye",
        "14,400,000",
        "0",
        "54.9",
        "MiB",
        "torch",
        "cpu",
        "float32",
        "tokens:",
        "float[batch",
        "5",
        "12],",
        "pooled:",
        "float[batch",
        "12]",
    ]
    assert rows["total"].split() == ["total", "2", "nodes", "14,400,084", "84", "54.9", "MiB"]


def test_plan_of_one_output_says_what_is_left_out(run):
    """`--output` prunes, and the table says so."""
    _, out, _ = run("plan", "sight.yaml", "--output", "pooled")
    assert "left out, because no wanted output needs them: bridge" in out


def test_plan_as_json_holds_the_same(run):
    """One document with nodes, totals and order."""
    code, out, _ = run("plan", "sight.yaml", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["order"] == ["eye", "bridge"]
    assert found["nodes"]["bridge"]["parameters"] == {"total": 84, "trainable": 84, "how": "formula"}
    assert found["totals"] == {"parameters": 14_400_084, "trainable": 84, "bytes": 4 * 14_400_084}


@pytest.mark.parametrize(("form", "start"), [("mermaid", "flowchart TB"), ("dot", "digraph"), ("svg", "<svg"), ("html", "<!doctype html>")])
def test_show_draws_to_stdout_and_into_files(run, form, start):
    """The same text goes either way."""
    code, out, _ = run("show", "diamond.yaml", "--format", form)
    assert code == 0
    assert out.startswith(start)
    assert run("show", "diamond.yaml", "--format", form, "--out", "drawing.txt")[0] == 0
    assert Path("drawing.txt").read_text(encoding="utf-8") == out


@pytest.mark.parametrize("file", ["diamond.yaml", "./diamond.yaml", "link"])
def test_a_drawing_does_not_replace_its_graph(run, file):
    """Under no name of it."""
    text = Path("diamond.yaml").read_text()
    Path("link").symlink_to("diamond.yaml")
    code, _, err = run("show", "diamond.yaml", "--out", file)
    assert (code, Path("diamond.yaml").read_text()) == (1, text)
    assert "would replace the graph" in err


def test_an_imported_graph_replaces_no_file(run):
    """One of before may have been rewired by hand, or be part of the checkpoint."""
    Path("checkpoint").mkdir()
    Path("checkpoint/config.json").write_text("{}")
    code, _, err = run("import", "./checkpoint", "--out", "checkpoint/config.json")
    assert (code, Path("checkpoint/config.json").read_text()) == (1, "{}")
    assert "output 'checkpoint/config.json' is there already, and a graph is rewired by hand" in err


def test_show_names_the_forms_there_are(run):
    """A form that is none is a mistake in the command."""
    code, _, err = run("show", "diamond.yaml", "--format", "pdf")
    assert code == 2
    assert "--format takes mermaid, dot, svg, html, png, found 'pdf'" in err


def test_explain_without_a_node_lists_the_nodes(run):
    """Kind, component, source and line of each, as a table and as JSON."""
    code, out, _ = run("explain", "diamond.yaml")
    heads, *rows = [line.split() for line in out.splitlines()]
    assert (code, heads) == (0, ["node", "kind", "use", "source", "written", "at"])
    assert all(row[-1].startswith("diamond.yaml:") for row in rows)
    listed = json.loads(run("explain", "diamond.yaml", "--json")[1])
    assert [(node["node"], node["kind"], node["use"]) for node in listed] == [tuple(row[:3]) for row in rows]


def test_explain_says_where_a_value_comes_from(run):
    """One value, with what it goes over."""
    code, out, _ = run("explain", "diamond.yaml", "whole.separator", "--set", "nodes.whole.with.separator=+", "--json")
    assert code == 0
    assert json.loads(out) == [
        {"key": "with.separator", "value": "+", "origin": "--set nodes.whole.with.separator", "replaced": ["default '-'"]}
    ]


def test_graphs_lists_every_shipped_graph_with_its_purpose(run):
    """The first sentence of the file is the description."""
    code, out, _ = run("graphs", "--json")
    found = {entry["name"]: entry["about"] for entry in json.loads(out)}
    assert code == 0
    assert {"vit", "clip", "blip2"} <= set(found)
    assert all(found.values())


def test_components_can_be_listed_by_kind(run):
    """Only those of the kind, each with its sentence."""
    code, out, _ = run("components", "--kind", "encoder")
    assert code == 0
    assert out.splitlines()[1:] == ["toy/eye    encoder  toys    See a picture."]


def test_a_kind_that_is_none_is_named_with_the_nearest(run):
    """Usage mistakes have code 2."""
    code, _, err = run("components", "--kind", "encodr")
    assert code == 2
    assert "Did you mean 'encoder'?" in err


def test_plugins_info_shows_ports_and_config_of_a_component(run):
    """Everything that a graph may say about it."""
    _, out, _ = run("plugins", "info", "toy/join")
    assert out.splitlines() == [
        "toy/join  preprocess, version 1, of the plugin toys",
        "Join two texts.",
        "  input  left: text",
        "  input  right: text",
        "  output text: text",
        "  with   separator: str = '-'",
    ]


def test_the_schema_is_json_and_knows_the_components(run):
    """It holds what is installed."""
    code, out, _ = run("schema")
    assert code == 0
    assert "toy/upper" in json.dumps(json.loads(out))


# -- mistakes in the command itself -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("chek",), "No such command 'chek'"),
        (("run",), "Missing argument"),
        (("run", "capitals.yaml", "--input", "text"), "--input takes NAME=VALUE, found 'text'"),
        (("run", "capitals.yaml", "--set", "a=1", "--set", "a=2"), "--set gives a twice"),
        (("run", "capitals.yaml", "--input", "text=a", "--init", "zeros"), "--init takes random, found 'zeros'"),
        (("plan", "capitals.yaml", "--exat"), "No such option"),
        (("check", "capitals.yaml", "--allow", "unsed"), "--allow takes unused, found 'unsed'"),
        (("lock", "capitals.yaml"), "'modelgraft lock' is not in this release"),
        (("--plugins", "all", "plan", "capitals.yaml"), "--plugins takes only=NAME,NAME, found 'all'"),
        (("serve",), "'modelgraft serve' is not in this release"),
    ],
)
def test_a_command_that_cannot_be_understood_gives_2(run, words, message):
    """On stderr, with what was found."""
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert message in err


def test_usage_mistakes_are_json_too(run):
    """With `--json` a program gets a document whatever happens."""
    code, out, _ = run("check", "--json")
    assert code == 2
    assert json.loads(out)["error"]["kind"] == "usage"


def test_a_defect_gives_70_and_says_how_to_see_more(run, monkeypatch):
    """The traceback comes with `--debug` alone."""

    def broken(*_, **__):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("modelgraft.api.plan", broken)
    code, _, err = run("plan", "capitals.yaml")
    assert code == 70
    assert "a defect of modelgraft or of a plugin: ZeroDivisionError: division by zero" in err
    assert "--debug" in err


def test_debug_shows_the_traceback_of_a_known_error_too(monkeypatch, tmp_path, capsys):
    """Wherever the option stands."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("modelgraft.installed.discovery.discover", toys.registry)
    assert main(["plan", "nowhere.yaml", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_the_version_is_that_of_the_package(run):
    """As pip says it."""
    assert run("--version")[:2] == (0, f"modelgraft {__import__('importlib.metadata').metadata.version('modelgraft')}\n")
    assert modelgraft.__all__ == sorted(modelgraft.__all__)


def test_help_documents_the_exit_codes_and_lists_no_command_that_is_not_there(run):
    """A person learns from --help what a script may rely on."""
    code, out, _ = run("--help")
    assert code == 0
    for sentence in ("0 all is well", "1 the graph has problems", "2 the command cannot be understood", "130 stopped"):
        assert sentence in " ".join(out.split())
    commands = {line.split()[0] for line in out.partition("Commands:")[2].splitlines() if line.strip()}
    assert commands.isdisjoint(LATER)
