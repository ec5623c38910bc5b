"""The kernel has a door: it stays small, imports nothing of modelgraft outside itself and nothing heavy, and its README holds."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

CORE = Path(__file__).parents[2] / "core"
KERNEL = CORE / "modelgraft" / "kernel"
MOST_LINES = 6_000
FILES = sorted(KERNEL.rglob("*.py"))
LIGHT = {"networkx", "pluggy", "pydantic", "yaml"}  # what it stands on beside the standard library

# Loads a module of the kernel, or runs code, where nothing else of modelgraft can be imported.
ALONE = """
import sys
class Wall:
    def find_spec(self, name, path=None, target=None):
        parts = name.split(".")
        if parts[0] == "modelgraft" and len(parts) > 1 and parts[1] != "kernel":
            raise ImportError(f"the kernel reached for {name}")
sys.meta_path.insert(0, Wall())
"""


def alone(code):
    return subprocess.run(
        [sys.executable, "-c", ALONE + code], capture_output=True, text=True, check=False, timeout=120, env={"PYTHONPATH": str(CORE)}
    )


def test_it_can_be_read_in_an_evening():
    """All of its lines, with those that are blank and those that explain."""
    lines = {path.relative_to(KERNEL).as_posix(): len(path.read_text().splitlines()) for path in FILES}
    assert sum(lines.values()) <= MOST_LINES, lines


def test_no_file_of_it_is_long():
    assert [path.name for path in FILES if len(path.read_text().splitlines()) > 400] == []


def imported(path):
    """The modules that a file names in imports, wherever they stand, those for type checkers too."""
    for item in ast.walk(ast.parse(path.read_text())):
        if isinstance(item, ast.Import):
            yield from (name.name for name in item.names)
        elif isinstance(item, ast.ImportFrom):
            yield item.module or ""
        elif isinstance(item, ast.Call) and getattr(item.func, "id", getattr(item.func, "attr", "")) in ("import_module", "__import__"):
            yield "a module by its name, which no contract sees"


def test_it_names_nothing_of_modelgraft_outside_itself_and_nothing_heavy():
    """Imports within functions and for type checkers count: an import contract leaves the latter out."""
    found = {(path.name, module) for path in FILES for module in imported(path)}
    own = {pair for pair in found if pair[1].startswith("modelgraft.kernel.")}
    foreign = {pair for pair in found - own if pair[1].partition(".")[0] not in sys.stdlib_module_names | LIGHT}
    assert foreign == set()


def test_every_module_of_it_can_be_imported_where_the_rest_of_modelgraft_cannot():
    modules = [".".join(path.relative_to(CORE).with_suffix("").parts) for path in FILES if path.name != "__init__.py"]
    heavy = "assert not {'torch', 'numpy', 'transformers', 'onnxruntime', 'networkx'} & sys.modules.keys()"
    told = alone("import importlib\n" + "\n".join(f"importlib.import_module({name!r})" for name in modules) + f"\n{heavy}")
    assert (told.returncode, told.stderr) == (0, "")


def test_the_example_of_its_readme_plans_a_graph_without_the_rest_of_modelgraft():
    (example,) = re.findall(r"```python\n(.*?)```", (KERNEL / "README.md").read_text(), re.DOTALL)
    told = alone(example)
    assert (told.returncode, told.stderr) == (0, "")


def test_the_wall_of_these_tests_holds():
    told = alone("import modelgraft.sources.views")
    assert "the kernel reached for modelgraft.sources" in told.stderr


def test_its_readme_names_files_that_there_are():
    """Paths in backticks, from the kernel or from core/modelgraft."""
    text = (KERNEL / "README.md").read_text()
    named = set(re.findall(r"`((?:modelgraft/)?[a-z_]+(?:/[a-z_]+)*(?:/|\.py))`", text))
    homes = (CORE.parent, CORE, KERNEL, KERNEL / "language", KERNEL / "checking")
    assert named
    assert [path for path in sorted(named) if not any((home / path).exists() for home in homes)] == []
