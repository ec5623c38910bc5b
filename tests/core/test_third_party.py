"""A plugin by somebody else: two files, built to a wheel, installed, and used like ours."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from support.scratch import build_wheel, install, scratch_environment

pytestmark = pytest.mark.slow  # it makes environments

PROJECT = Path(__file__).parents[1] / "third_party"
GRAPH = """modelgraft: 1
inputs: {text: text}
nodes:
  loud: {use: shout/louder, with: {marks: 3}, in: {text: inputs.text}}
outputs: {text: loud}
"""


@pytest.fixture(scope="module")
def ask(tmp_path_factory):
    """Run modelgraft in an environment with that plugin; gives its stdout."""
    folder = tmp_path_factory.mktemp("third_party")
    python = scratch_environment(folder / "env")
    install(python, build_wheel(PROJECT, folder / "wheel"))
    (folder / "loud.yaml").write_text(GRAPH, encoding="utf-8")

    def ask_modelgraft(*words: str) -> str:
        done = subprocess.run([python, "-m", "modelgraft", *words], capture_output=True, text=True, check=False, cwd=folder)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return ask_modelgraft


def test_the_project_is_two_files():
    """As the README promises."""
    assert sorted(path.name for path in PROJECT.iterdir() if path.is_file()) == ["pyproject.toml", "shout.py"]


def test_its_component_is_listed(ask):
    """With its plugin and its sentence."""
    found = {one["id"]: one for one in json.loads(ask("components", "--json"))}
    assert (found["shout/louder"]["plugin"], found["shout/louder"]["about"]) == ("shout", "Write in capitals, with exclamation marks.")
    listed = {plugin["name"]: plugin for plugin in json.loads(ask("plugins", "list", "--json"))}
    assert (listed["shout"]["package"], listed["shout"]["version"], listed["shout"]["error"]) == ("modelgraft-shout", "1.0", None)


def test_its_component_is_in_the_schema(ask):
    """So that an editor completes its config."""
    schema = ask("schema")
    assert "shout/louder" in schema
    assert "marks" in schema


def test_a_graph_with_it_runs(ask):
    """Checked, and run."""
    assert ask("check", "loud.yaml") == "ok  loud.yaml  1 node, text: text -> text: text\n"
    assert ask("run", "loud.yaml", "--input", "text=hey") == "HEY!!!\n"


def test_only_the_named_plugins_are_loaded(ask):
    """`--plugins only=` leaves the others out, wherever it stands."""
    assert [one["id"] for one in json.loads(ask("--plugins", "only=shout", "components", "--json"))] == ["shout/louder"]
    assert [one["id"] for one in json.loads(ask("components", "--json", "--plugins=only=shout"))] == ["shout/louder"]


def test_a_plugin_that_was_started_installs_runs_and_conforms(tmp_path):
    """`plugins new` makes a project that works as it is; `install` says what it brings."""
    python = scratch_environment(tmp_path / "env")

    def ask(*words: str) -> str:
        done = subprocess.run([python, *words], capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    made = ask("-m", "modelgraft", "plugins", "new", "my_plugin")
    assert made == "made my_plugin/ with pyproject.toml, modelgraft_my_plugin.py, test_my_plugin.py, my_plugin.yaml\n"
    wheel = build_wheel(tmp_path / "my_plugin", tmp_path / "wheel")
    assert (
        ask("-m", "modelgraft", "--offline", "plugins", "install", str(wheel)) == "my_plugin  modelgraft-my-plugin 0.1.0  my-plugin/echo\n"
    )
    assert ask("-m", "modelgraft", "run", "my_plugin/my_plugin.yaml", "--input", "text=hey") == "hey hey hey\n"
    assert ask("-m", "modelgraft", "plugins", "check", "my_plugin").splitlines()[1:] == ["import          ok", "my-plugin/echo  ok"]
    ask("-m", "pytest", "-q", "-p", "no:cacheprovider", "my_plugin")
