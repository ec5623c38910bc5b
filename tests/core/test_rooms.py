"""A folder of many files has a README that gives each of them its place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE, PLUGINS = ROOT / "core" / "modelgraft", ROOT / "plugins" / "modelgraft_plugins"
NAMED = (
    *(CORE / room for room in ("cli", "data", "engine", "loops", "sources", "tools")),
    *(
        PLUGINS / plugin
        for plugin in ("audio", "diffusion", "formats", "llamacpp", "llm", "onnx", "projectors", "torch", "training", "vision")
    ),
)


@pytest.mark.parametrize("folder", NAMED, ids=lambda folder: folder.name)
def test_a_readme_names_every_file_of_its_folder(folder):
    """A new file is given its place there."""
    text = (folder / "README.md").read_text(encoding="utf-8")
    files = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
    assert files
    assert [path.name for path in files if not {f"`{path.name}`", f"`{path.stem}`"} & set(re.findall(r"`[^`\n]+`", text))] == []


@pytest.mark.parametrize("folder", NAMED, ids=lambda folder: folder.name)
def test_a_table_of_files_names_none_that_is_gone(folder):
    """In the first column of its tables."""
    text = (folder / "README.md").read_text(encoding="utf-8")
    named = {name for row in re.findall(r"^\| (`[^|]+) \|", text, re.MULTILINE) for name in re.findall(r"`(\w+\.py)`", row)}
    assert sorted(name for name in named if not (folder / name).is_file()) == []
