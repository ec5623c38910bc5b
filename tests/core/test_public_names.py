"""The README says what there is: names, commands, and examples that run."""

from __future__ import annotations

import importlib
import re
import sys
import types
from pathlib import Path

import pytest

import modelgraft
from modelgraft.cli.app import LATER, build_app
from modelgraft.cli.extensions import commands_of, names_of
from modelgraft.installed.discovery import assemble, discover
from modelgraft.kernel.language.document import parse
from modelgraft.kernel.language.expand import expand_document

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """The text below a heading of the README."""
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def blocks(text: str, language: str) -> list[str]:
    """The code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def first_column(text: str) -> set[str]:
    """The names in code quotes in the first column of a table."""
    return {name for row in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for name in re.findall(r"`([^`]+)`", row)}


def test_the_readme_lists_exactly_the_public_names():
    """No name is public that nobody can look up, and none is promised that is not there."""
    assert first_column(section("In Python")) == set(modelgraft.__all__)


def test_every_public_name_can_be_imported():
    """`from modelgraft import *` works, and nothing is listed twice."""
    assert len(set(modelgraft.__all__)) == len(modelgraft.__all__)
    for name in modelgraft.__all__:
        assert getattr(modelgraft, name) is not None


def test_no_module_has_the_name_of_a_public_function():
    """Or importing the module would hide the function."""
    modules = {path.stem for path in (ROOT / "core" / "modelgraft").iterdir()}
    assert modules.isdisjoint(modelgraft.__all__)


def test_an_unknown_name_is_an_attribute_error():
    """As of any module."""
    with pytest.raises(AttributeError, match="has no attribute 'lod'"):
        modelgraft.lod  # noqa: B018 reading it is the test


def test_the_readme_lists_exactly_the_commands():
    """Those of this release; the others are named as missing."""
    app = build_app()
    plugins = commands_of(discover(), taken=names_of(app)).commands
    plain = {command.name for command in app.registered_commands} | set(plugins)
    groups = {f"{group.name} {command.name}" for group in app.registered_groups for command in group.typer_instance.registered_commands}
    listed = {
        re.match(r"modelgraft ([a-z]+(?: (?:list|info|install|new|check|clear|verify))?)", name)[1]
        for name in first_column(section("Commands"))
    }
    assert listed == plain | groups
    assert set(LATER).isdisjoint(plain)
    assert all(f"`{name}`" in section("Limits") for name in LATER)


def test_the_graph_of_the_readme_checks_without_a_width_in_it():
    """The projector learns both widths from its neighbours."""
    text = blocks(section("A graph"), "yaml")[0]
    solved = modelgraft.check(expand_document(parse(text, path=Path("readme.yaml")), registry=discover()))
    config = solved.nodes["project"].config
    assert (config.in_features, config.out_features) == (1152, 896)
    assert "1152" not in text
    assert "896" not in text


def test_the_graph_in_python_of_the_readme_checks(capsys):
    """It solves, and prints a document that says the same."""
    names: dict[str, object] = {"mg": modelgraft}
    exec(compile(blocks(section("In Python"), "python")[1], "README.md", "exec", dont_inherit=True), names)
    written = parse(capsys.readouterr().out, path=Path("caption.yaml"))
    assert modelgraft.Graph.of(expand_document(written, registry=discover())) == names["graph"]


def test_the_component_of_the_readme_works():
    """In at most 20 lines, and it does what it says."""
    code = blocks(section("A component in 20 lines"), "python")[0]
    assert len(code.splitlines()) <= 20
    module = types.ModuleType("shout")
    exec(compile(code, "README.md", "exec", dont_inherit=True), module.__dict__)
    node = "{use: shout/louder, with: {marks: 2}, in: {text: inputs.text}}"
    text = f"modelgraft: 1\ninputs: {{text: text}}\nnodes: {{loud: {node}}}\noutputs: {{text: loud}}\n"
    graph = expand_document(parse(text, path=Path("shout.yaml")), registry=assemble({"shout": module}))
    with modelgraft.open(graph) as pipeline:
        assert pipeline.run(text="hey")["text"] == "HEY!!"


def test_the_readme_names_the_two_commands_and_the_editor_line():
    """In the first screen, and where the schema is spoken of."""
    assert "make demo" in README[:1200]
    assert "make test" in README[:1200]
    assert "# yaml-language-server: $schema=graph.schema.json" in README


@pytest.mark.parametrize("name", ["graphs/README.md", "plugins/README.md", "CHANGELOG.md", "LICENSE"])
def test_what_the_readme_points_to_is_there(name):
    """No dead links."""
    assert (ROOT / name).is_file()
    assert f"({name})" in README or name == "LICENSE"


def test_the_graph_notes_name_every_graph_of_a_system():
    """Those that lie in a folder of their own."""
    text, home = (ROOT / "graphs" / "README.md").read_text(encoding="utf-8"), ROOT / "graphs"
    names = [path.relative_to(home).with_suffix("") for path in home.glob("*/*.yaml")]
    called = {path.parent.as_posix() if path.name == path.parent.name else path.as_posix() for path in names}
    assert called
    assert not [name for name in sorted(called) if f"`{name}`" not in text]


def test_the_graph_notes_name_each_graph_and_system_once():
    """In the second column of their tables, and in the first."""
    text = (ROOT / "graphs" / "README.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in text[text.index("## Perception") :].splitlines() if line.startswith("| ")]
    systems = [row[0].strip("| ") for row in rows if row[0].strip("| ") not in ("", "system")]
    graphs = [name for row in rows for name in re.findall(r"`([^`]+)`", row[1])]
    assert len(systems) >= 20
    assert len(graphs) > 70
    assert not [name for name in (*systems, *graphs) if systems.count(name) > 1 or graphs.count(name) > 1]


@pytest.mark.slow
def test_the_graph_notes_name_presets_that_there_are():
    """By their whole names, and by those that stand beside such a one in a row of a table."""
    text, known = (ROOT / "graphs" / "README.md").read_text(encoding="utf-8"), discover().recorded_configs.keys()
    told = set(re.findall(r"preset:[a-z0-9][\w.-]*", text)) - {"preset:name"}
    for row in re.findall(r"`preset:[^|]*", text):
        told |= {f"preset:{name}" for name in re.findall(r"(?:, |to )`([a-z][\w.-]*)`", row)}
    assert len(told) > 15
    assert not told - known


def test_the_graphs_of_the_graph_notes_check():
    """The examples of graphs/README.md, as if they lay there."""
    texts = blocks((ROOT / "graphs" / "README.md").read_text(encoding="utf-8"), "yaml")
    assert len(texts) >= 6
    for text in texts:
        modelgraft.check(expand_document(parse(text, path=ROOT / "graphs" / "example.yaml"), registry=discover()))


def test_the_takes_of_the_graph_notes_are_what_they_say(tmp_path):
    (text,) = (text for text in blocks((ROOT / "graphs" / "README.md").read_text(encoding="utf-8"), "yaml") if "router/repeat" in text)
    (tmp_path / "takes.yaml").write_text(text, encoding="utf-8")
    with modelgraft.open(modelgraft.load(tmp_path / "takes.yaml")) as pipeline:
        assert pipeline.run(text=["a", "b"])["all"] == [[f"{take}: {said}" for take in range(4)] for said in "ab"]


def test_the_routes_of_the_graph_notes_lead_where_they_say():
    """Each record of a batch its own way, and back in order."""
    (text,) = (text for text in blocks((ROOT / "graphs" / "README.md").read_text(encoding="utf-8"), "yaml") if "router/match" in text)
    solved = modelgraft.check(expand_document(parse(text, path=ROOT / "graphs" / "example.yaml"), registry=discover()))
    with modelgraft.open(solved) as pipeline:
        assert pipeline.run(text=["Why?", "hi there?", "go", "Hello"])["reply"] == [
            "You ask: Why?",
            "Hello to you!",
            "go!!!",
            "Hello to you!",
        ]


def test_the_component_of_the_plugin_notes_keeps_its_declaration(monkeypatch):
    """The declaration, the module and the proof of plugins/README.md fit together."""
    declaration, module, proof, *_ = blocks(
        (ROOT / "plugins" / "README.md").read_text(encoding="utf-8"), "python"
    )  # the last is a whole plugin, with a test of its own
    names = {"torch": importlib.import_module("torch")}
    exec(compile(module, "my_plugin/modules.py", "exec", dont_inherit=True), names)
    heavy = types.ModuleType("my_plugin.modules")
    heavy.Linear = names["Linear"]
    monkeypatch.setitem(sys.modules, "my_plugin", types.ModuleType("my_plugin"))
    monkeypatch.setitem(sys.modules, "my_plugin.modules", heavy)
    light = types.ModuleType("my_plugin_declared")
    monkeypatch.setitem(sys.modules, "my_plugin_declared", light)
    light.__dict__.update(component=modelgraft.component, Config=modelgraft.Config, Dim=modelgraft.Dim)
    exec(compile(declaration + proof, "plugins/README.md", "exec", dont_inherit=True), light.__dict__)
    light.test_linear_conforms()
