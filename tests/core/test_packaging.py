"""What is built holds all that is needed, and works from where it is installed."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
import zipfile
from pathlib import Path

import pytest

from modelgraft.kernel.language.shipped_graphs import shipped_names
from support.scratch import ROOT, build_wheel, install, scratch_environment

pytestmark = pytest.mark.slow  # it builds and installs


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of this checkout."""
    return build_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


def sources(folder: str, suffixes: tuple[str, ...]) -> set[str]:
    """Files of a source folder, relative to it."""
    root = ROOT / folder
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.suffix in suffixes and "__pycache__" not in path.parts}


def test_the_wheel_holds_every_graph_and_every_module(wheel):
    """A graph or module that is missing from the package is missing for every user but the author."""
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"modelgraft/graphs/{name}" for name in sources("graphs", (".yaml",))} <= names
    plugins = {name for name in sources("plugins", (".py", ".json", ".txt", ".typed")) if not name.startswith("examples/")}
    assert sources("core", (".py", ".html", ".typed")) | plugins <= names, "all but distributions of their own"


def test_the_wheel_holds_nothing_else(wheel):
    """Neither tests nor benchmarks become importable."""
    tops = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"modelgraft", "modelgraft_plugins"}


def test_the_installed_wheel_knows_its_graphs_and_plugins(wheel, tmp_path):
    """In an empty environment, away from the checkout."""
    python = scratch_environment(tmp_path / "env")
    install(python, wheel)

    def ask(*words: str) -> str:
        return subprocess.run([python, *words], check=True, capture_output=True, text=True, cwd=tmp_path).stdout

    home = Path(ask("-c", "import modelgraft; print(modelgraft.__file__)").strip())
    assert home.is_relative_to(tmp_path)
    listed = json.loads(ask("-m", "modelgraft", "graphs", "--json"))
    assert {entry["name"] for entry in listed} == set(shipped_names())
    assert "ok  vit" in ask("-m", "modelgraft", "check", "vit")
    plugins = json.loads(ask("-m", "modelgraft", "plugins", "list", "--json"))
    assert [plugin["name"] for plugin in plugins if plugin["error"]] == []


def test_every_plugin_folder_has_an_entry_point():
    """A new plugin that is not named in pyproject.toml would silently be absent."""
    points = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]["modelgraft"]
    folders = {path.parent.name for path in (ROOT / "plugins" / "modelgraft_plugins").glob("*/__init__.py")}
    shared = {"conversations"}  # data that several plugins read, and no plugin
    assert {value.rpartition(".")[2] for value in points.values()} == folders - shared


def test_every_dependency_is_constrained():
    """`pip install -c constraints.txt` must not take whatever is newest, torch least of all."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    fixed = {line.partition("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(need for needs in project["optional-dependencies"].values() for need in needs)]
    names = {re.match(r"[A-Za-z0-9._-]+", need)[0].lower().replace("_", "-") for need in wanted}
    assert names - fixed - {"modelgraft", "onnxruntime"} == set()  # onnxruntime: only where there is no build for GPUs
