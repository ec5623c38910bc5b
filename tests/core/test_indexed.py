"""What plugins offer is kept, and stands for them only as long as nothing has changed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from modelgraft import hookimpl
from modelgraft.cli.app import LATER, MODULES, build_app
from modelgraft.cli.extensions import names_of
from modelgraft.installed.discovery import discover
from modelgraft.installed.indexed import registry_in
from modelgraft.installed.made_once import made_once

TABLES = ("components", "record_types", "recorded_configs", "weight_readers", "backends", "families", "keepers")
PLUGIN = '''
"""A plugin of the tests."""
from modelgraft import component, hookimpl
{more}

@component("odd/{name}", kind="router", inputs={{"x": "text"}}, outputs={{"y": "text"}})
def first(x):
    """Hand on."""
    return x


@hookimpl
def register_components(register):
    register(first)
'''
LISTED = "import sys; from pathlib import Path; from modelgraft.installed.indexed import registry_in as r; f = r(Path(sys.argv[1]))"
SAYING = f"{LISTED}; print(sorted(n for n in f.components if n.startswith('odd')), 'modelgraft_plugins.vision' in sys.modules)"


def install(place: Path, name: str = "one", more: str = "") -> None:
    """A distribution with a plugin in a folder."""
    facts = place / "odd-1.0.dist-info"
    facts.mkdir(parents=True, exist_ok=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[modelgraft]\nodd = odd\n")
    (place / "odd.py").write_text(PLUGIN.format(name=name, more=more))


def listed(place: Path, kept: Path) -> str:
    """The components of the plugin as a process of its own sees them, and whether it imported another plugin."""
    paths = os.pathsep.join(filter(None, [str(place), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-c", SAYING, str(kept)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": paths},
    )
    return done.stdout.strip()


def test_what_is_kept_says_what_loading_all_plugins_says(tmp_path):
    """Table by table, entry by entry, in the same order; and whose everything is."""
    whole = discover()
    registry_in(tmp_path)
    kept = registry_in(tmp_path)
    assert list(tmp_path.glob("*.json"))
    assert kept.plugins == whole.plugins
    assert list(kept.plugins) == list(whole.plugins)
    assert kept.owners == whole.owners
    for table in TABLES:
        mine, theirs = getattr(kept, table), getattr(whole, table)
        assert list(mine) == list(theirs), table
        assert dict(mine) == dict(theirs), table
    assert kept.find("text/template") == whole.find("text/template")
    assert kept.find("text/templat") is None
    for hook in ("register_commands", "before_node"):
        mine, theirs = (getattr(one.manager.hook, hook).get_hookimpls() for one in (kept, whole))
        assert [one.plugin_name for one in mine] == [one.plugin_name for one in theirs], hook


@pytest.mark.slow
def test_a_change_of_anything_that_was_imported_is_noticed(tmp_path):
    """A plugin that is installed, edited, edited in what it imports, named otherwise, and taken away again."""
    place, kept = tmp_path / "place", tmp_path / "kept"
    (place / "empty").mkdir(parents=True)
    assert listed(place, kept) == "[] True"
    assert listed(place, kept) == "[] False"
    install(place, more="from oddly import NAME")
    (place / "oddly.py").write_text("NAME = 1\n")
    assert listed(place, kept) == "['odd/one'] True"
    assert listed(place, kept) == "['odd/one'] False"
    install(place, name="two", more="from oddly import NAME")
    assert listed(place, kept) == "['odd/two'] True"
    (place / "oddly.py").write_text("NAME = 22\n")
    assert listed(place, kept) == "['odd/two'] True"
    assert listed(place, kept) == "['odd/two'] False"
    (place / "odd-1.0.dist-info" / "entry_points.txt").unlink()
    assert listed(place, kept) == "[] True"


@pytest.mark.slow
def test_a_plugin_that_is_broken_is_never_kept(tmp_path):
    """It may be whole the next time, for a reason that no file tells."""
    place, kept = tmp_path / "place", tmp_path / "kept"
    install(place, more="import this_is_not_there")
    assert [listed(place, kept) for _ in range(2)] == ["[] True", "[] True"]


@pytest.mark.parametrize("harm", ["cut", "other", "none", "a file in its place"])
def test_what_cannot_be_read_or_written_is_as_good_as_nothing(tmp_path, harm):
    """Nothing is said of it, and nothing fails."""
    folder = tmp_path / "kept"
    if harm == "a file in its place":
        folder.write_text("")
    else:
        registry_in(folder)
        (file,) = folder.glob("*.json")
        text = file.read_text()
        file.write_text({"cut": text[: len(text) // 2], "other": text.replace("text/template", "text/other"), "none": ""}[harm])
    assert "text/template" in registry_in(folder).components


def python(cache, *words):
    """A process of Python whose cache is a folder."""
    env = {**os.environ, "MODELGRAFT_CACHE": str(cache)}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, timeout=120, env=env)


@pytest.mark.parametrize(("words", "used"), [(("check", "blip2"), ["vision"]), (("components",), [])], ids=["check", "components"])
def test_a_light_command_loads_the_plugins_of_its_graph_alone(tmp_path, words, used):
    """Once it is kept what they offer, and what was made of that: what is used is imported, and what is not is known by name."""
    program = (
        "import sys; from modelgraft.cli import main; code = main(sys.argv[1:]); names = 'vision', 'diffusion', 'onnx', 'speech'; "
        "print(code, sorted(name for name in names if f'modelgraft_plugins.{name}' in sys.modules), file=sys.stderr)"
    )
    found = [python(tmp_path, "-c", program, *words) for _ in range(3)]
    assert [one.returncode for one in found] == [0, 0, 0]
    assert [found[at].stderr.splitlines()[-1] for at in (0, 2)] == ["0 ['diffusion', 'onnx', 'speech', 'vision']", f"0 {used}"]
    assert found[0].stdout == found[1].stdout == found[2].stdout


@pytest.mark.parametrize("words", [("plugins", "list"), ("components", "--kind", "llm"), ("plan", "clip", "--json"), ("check", "nobody")])
def test_commands_say_the_same_with_what_is_kept_and_without(tmp_path, words):
    """To the letter, errors as well."""
    found = [python(tmp_path, "-m", "modelgraft", *words) for _ in range(2)]
    assert found[0].stdout == found[1].stdout
    assert found[0].stderr == found[1].stderr
    assert found[0].returncode == found[1].returncode


def test_every_command_is_in_the_table_of_modules():
    """So that one command imports its own module alone, and finds itself there."""
    commands = {name for names in MODULES.values() for name in names}
    assert names_of(build_app()) - LATER.keys() == commands
    for name in commands:
        assert name in names_of(build_app(name))


def test_a_hook_loads_the_plugins_that_implement_it_alone(tmp_path):
    """Whoever asks for the commands of plugins, as `--help` does, needs no model."""
    program = (
        "import sys; from pathlib import Path; from modelgraft.installed.indexed import registry_in; "
        "found = registry_in(Path(sys.argv[1])); "
        "print([one.plugin_name for one in found.manager.hook.register_commands.get_hookimpls()], "
        "'modelgraft_plugins.vision' in sys.modules)"
    )
    words = [sys.executable, "-c", program, str(tmp_path)]
    said = [subprocess.run(words, capture_output=True, text=True, check=True, timeout=120).stdout.strip() for _ in range(2)]
    assert said[1] == said[0].replace("True", "False")
    assert "benching" in said[1]


def test_what_somebody_registers_with_a_kept_manager_is_heard(tmp_path):
    """As with pluggy's own: all plugins are loaded for it."""
    registry_in(tmp_path)
    kept = registry_in(tmp_path)
    assert not kept.manager.hook.before_node.get_hookimpls()
    told: list[str] = []

    class Watcher:
        @hookimpl
        def before_node(self, node: str, component: str) -> None:
            told.append(f"{node} {component}")

    kept.manager.register(Watcher())
    kept.manager.hook.before_node(node="eye", component="vision/vit@1")
    assert told == ["eye vision/vit@1"]


def test_what_is_made_of_all_plugins_is_made_again_when_anything_is_another(tmp_path):
    """And given as it was otherwise; whatever its file has become."""
    made: list[int] = []

    def make() -> dict[str, int]:
        made.append(0)
        return {"number": len(made)}

    first = registry_in(tmp_path)  # found out, not read
    assert [made_once(first, "sum", make)["number"], made_once(first, "sum", make)["number"]] == [1, 2]
    kept = registry_in(tmp_path)
    assert [made_once(kept, "sum", make)["number"] for _ in range(2)] == [3, 3]
    assert made_once(kept, "sum", make, beside="another graph")["number"] == 4
    (file,) = tmp_path.glob("*.sum")
    file.write_text(file.read_text()[:-30])
    assert made_once(kept, "sum", make, beside="another graph")["number"] == 5
    (index,) = tmp_path.glob("*.json")
    index.write_text(index.read_text() + " ")
    assert made_once(kept, "sum", make, beside="another graph")["number"] == 6
