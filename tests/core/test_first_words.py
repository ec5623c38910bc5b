"""What a new user types and reads first: numbers of options, lists of commands, values in tables, a graph in place of a command."""

from __future__ import annotations

import json
import re
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from modelgraft.cli.making import _run_told
from modelgraft.installed.discovery import discover
from modelgraft.kernel.words.notation import in_yaml
from support.command import commands

RUN = ("run", "capitals.yaml", "--input", "text=a")


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Run a command in an empty folder with the toys alone."""
    return commands(monkeypatch, tmp_path, capsys)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((*RUN, "--seed", "x"), "'--seed': found 'x'; wanted: a whole number"),
        ((*RUN, "--seed", "1.5"), "'--seed': found '1.5'; wanted: a whole number"),
        ((*RUN, "--timeout", "soon"), "'--timeout': found 'soon'; wanted: seconds, more than 0"),
        ((*RUN, "--timeout", "0"), "'--timeout': found '0'; wanted: seconds, more than 0"),
        ((*RUN, "--timeout", "nan"), "'--timeout': found 'nan'; wanted: seconds, more than 0"),
        (("map", "capitals.yaml", "d", "--out", "o", "--batch-size", "0"), "'--batch-size': found 0; wanted: a whole number, at least 1"),
        (("map", "capitals.yaml", "d", "--out", "o", "--batch-size", "a"), "'--batch-size': found 'a'; wanted: a whole number"),
        (("plugins", "check", "x", "--timeout", "-1"), "'--timeout': found '-1'; wanted: seconds, more than 0"),
        (("plugins", "install", ""), "SPEC is a name, a wheel or a folder, found ''"),
    ],
)
def test_an_option_that_is_no_number_is_told_in_plain_words(run, words, told):
    """The option by the name that was typed, what was found, what is wanted."""
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert told in " ".join(err.split())


def test_seeds_may_be_negative_and_numbers_may_have_a_default(run):
    """As they always could."""
    assert run(*RUN, "--seed", "-3", "--timeout", "0.5")[0] == 0


def test_lists_of_commands_say_whole_sentences(run):
    """Nothing is cut after so many letters."""
    for group in ((), ("plugins",), ("cache",)):
        code, out, _ = run(*group, "--help")
        assert code == 0
        listed = out[out.index("Commands:") :]
        assert "..." not in listed.replace("LLaVA, ...", "")


def test_a_graph_in_place_of_a_command_is_known_as_one(run):
    """A shipped one by its name, a file by its ending."""
    for word in ("describe", "capitals.yaml"):
        code, _, err = run(word)
        assert code == 2
        assert f"'{word}' is a graph: modelgraft run {word}" in err
    assert "is a graph" not in run("descrive")[2]


def test_a_drawing_goes_into_no_file_whose_ending_says_another_form(run):
    """An unknown ending was taken for Mermaid; with --format any is taken."""
    code, _, err = run("show", "capitals.yaml", "--out", "x.pdf")
    assert code == 1
    assert "goes into a file that ends in .svg, .html, .png, .mmd, .dot; for another, say --format too" in err
    assert not Path("x.pdf").exists()
    assert run("show", "capitals.yaml", "--out", "x.txt", "--format", "mermaid")[0] == 0
    assert Path("x.txt").read_text().startswith("flowchart")


@pytest.mark.parametrize("value", [None, True, False, 3, 0.5, -1e-12, "a", "it's", "", [], [2, 3], [[1], "x"], {}, {"a": None}, [True]])
def test_a_value_in_a_line_is_what_a_graph_would_hold(value):
    """YAML reads it back."""
    found = yaml.safe_load(in_yaml(value))
    assert found == value or float(found) == value  # YAML 1.1 takes 1e-12 for a text, as PyYAML does


def test_what_yaml_has_no_form_for_is_spelled():
    """Keys of any kind, and objects."""
    assert in_yaml({(1, 2): 3}) == "{(1, 2): 3}"
    assert in_yaml(range(2)) == "range(0, 2)"


def test_defaults_of_a_component_are_values_and_types_are_short(run, monkeypatch):
    """An empty list is [], in JSON too, and not the text "()"."""
    monkeypatch.setattr("modelgraft.installed.discovery.discover", lambda **_: discover(only=("llm",)))
    config = json.loads(run("plugins", "info", "llm/causal", "--json")[1])["config"]
    assert (config["stop"]["default"], config["model"]["default"], config["top_k"]["default"]) == ([], {}, None)
    assert config["prompt"]["default"] == "{prompt}"
    assert config["early_stopping"]["type"] == "bool | Literal['never']"
    out = run("plugins", "info", "llm/causal")[1]
    assert "stop: tuple[str, ...] = []" in out
    assert "chat: bool = false" in out
    assert "prompt: str = '{prompt}'" in out


def test_a_misspelt_key_is_told_with_the_nearest_and_few_others(run):
    """The list of all keys of a language model hid the way out."""
    code, _, err = run("explain", "sight.yaml", "eye.wdth")
    assert code == 1
    assert len(err) < 400


def test_pip_says_what_it_does_and_not_what_is_there_already(capsys):
    """Its lines on packages that are installed hid the plugin; its exit code is handed on."""
    said = "print('Requirement already satisfied: a in /b'); print('Successfully installed c'); raise SystemExit(3)"
    assert _run_told([sys.executable, "-c", said]) == 3
    assert capsys.readouterr() == ("", "Successfully installed c\n")


def test_a_file_that_is_not_there_has_a_way_out(run):
    """The nearest file beside it, a shipped graph of that name, a folder that is missing."""
    assert "Did you mean 'capitals.yaml'?" in run("check", "capitls.yaml")[1]
    Path("some").mkdir()
    Path("some/capitals.yaml").touch()
    assert "Did you mean 'some/capitals.yaml'?" in run("check", "some/capitls.yaml")[1]  # it can be pasted
    assert "without its ending, 'describe' is a shipped graph" in run("check", "describe.yaml")[1]
    assert "there is no folder gone" in run("check", "gone/a.yaml")[1]
    for word in ("zzzzzzzzzz.yaml", "z.yaml"):  # the ending, which is alike, brings none near
        assert "graphs in that folder: capitals.yaml, diamond.yaml" in run("check", word)[1]


def test_a_base_that_is_not_there_is_the_only_problem(run):
    """What is changed of it says nothing more."""
    Path("more.yaml").write_text("modelgraft: 1\nextends: ./gone.yaml\nnodes.big.frozen: false\nparams.count: 3\n")
    code, out, _ = run("check", "more.yaml")
    assert code == 1
    assert "more.yaml:2  no-such-graph  gone.yaml cannot be read: No such file or directory" in out
    assert "unknown-node" not in out


def test_explain_says_where_frozen_comes_from(run):
    """A file that takes it away goes over the one that gave it; what nobody wrote is the default."""
    Path("base.yaml").write_text(Path("sight.yaml").read_text())
    Path("more.yaml").write_text("modelgraft: 1\nextends: ./base.yaml\nnodes.eye.frozen: false\n")

    def frozen(name):
        rows = json.loads(run("explain", name, "eye.frozen", "--json")[1])
        return [(row["value"], row["origin"].partition(":")[0], [part.rpartition(" ")[2] for part in row["replaced"]]) for row in rows]

    Path("plain.yaml").write_text(Path("sight.yaml").read_text().replace(", frozen: true", ""))
    assert frozen("plain.yaml") == [(False, "default", [])]
    assert frozen("base.yaml") == [(True, "base.yaml", [])]
    assert frozen("more.yaml") == [(False, "more.yaml", ["true"])]


def test_what_a_plugin_raises_in_a_run_is_told_with_the_line_of_its_author(run):
    """On the command line; the error itself, and its JSON, stay as they are."""
    words = ("run", "failing.yaml", "--input", "text=bad", "--quiet")
    code, _, err = run(*words)
    assert code == 1
    file, _, line = err.strip().rpartition("see ")[2].rpartition(":")
    assert "raise " in Path(file).read_text().splitlines()[int(line) - 1]
    assert "see " not in json.loads(run(*words, "--json")[1])["error"]["message"]


def test_the_project_of_the_readme_of_plugins_builds(tmp_path, monkeypatch):
    """Its two files as they stand make a wheel that holds the module and the entry point."""
    hatchling = pytest.importorskip("hatchling.build")
    root = Path(__file__).parents[2]
    (project,) = re.findall(r"```toml\n(.*?)```", (root / "plugins/README.md").read_text(encoding="utf-8"), re.DOTALL)
    codes = re.findall(r"```python\n(.*?)```", (root / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (module,) = (code for code in codes if "shout.py" in code)
    (tmp_path / "pyproject.toml").write_text(project)
    (tmp_path / "shout.py").write_text(module)
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile(hatchling.build_wheel(str(tmp_path))) as wheel:
        assert "shout.py" in wheel.namelist()
        (points,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
        assert wheel.read(points).decode().split() == ["[modelgraft]", "shout", "=", "shout"]
