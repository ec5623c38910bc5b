"""The system knows no medium by name: outside of records/ nothing in core asks what a record type is called."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import modelgraft
from modelgraft.records.shipped import SHIPPED

CORE = Path(modelgraft.__file__).parent
# Names of media that are words of other things too: where they are that, and what they mean there. Names of files, wherever they lie.
ELSEWHERE: dict[str, dict[str, str]] = {
    "object": {
        "matching.py": "a word of the language: what takes everything",
        "schema.py": "a word of JSON Schema",
        "event_schema.py": "a word of JSON Schema",
        "stage_schema.py": "a word of JSON Schema",
    },
    "mask": {
        "ports.py": "a dtype where axes follow, a record type alone",
        "unify.py": "the dtype of a route",
        "wiring.py": "the dtype of a route",
        "defaults.py": "the dtype",
        "forms.py": "the dtype",
        "conformance.py": "the dtype",
        "examples.py": "the dtype",
        "palette.py": "the family of truth values",
        "picture.py": "the dtype, and the family of truth values",
    },
    "text": {
        "document.py": "the type of a param, which is a Python type",
        "interpolate.py": "the type of a param",
        "events.py": "the text of an event",
        "event_schema.py": "the text of an event",
        "run.py": "the text of a warning",
        "live.py": "the text of an event",
        "cards.py": "a part of checkpoints is called so",
    },
    "label": {
        "events.py": "what a step is called",
        "live.py": "what a step is called",
        "own_files.py": "a file of checkpoints is called so",
    },
    "depth": {"config_rules.py": "a key of configs: the number of layers", "recorded.py": "a key of configs: the number of layers"},
}
FOLDERS = ("records",)


def words_of(path: Path) -> set[str]:
    """The names of media among the texts of the code, whatever it does with them; docstrings are no code."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told]
    return {node.value for node in texts if node.value in SHIPPED}


def files() -> list[Path]:
    return [path for path in sorted(CORE.rglob("*.py")) if path.relative_to(CORE).parts[0] not in FOLDERS]


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(CORE)))
def test_no_code_outside_of_records_names_a_medium(path):
    """What is listed has a reason; nothing else is there."""
    assert {word for word in words_of(path) if path.name not in ELSEWHERE.get(word, {})} == set()


def test_a_name_of_a_medium_would_be_found(tmp_path):
    """In a comparison, a table or a lookup; not in a docstring."""
    (tmp_path / "odd.py").write_text('"""image"""\nif kind.name == "video" or kind in ("boxes",): TABLE = {"imu": 1}[kind.get("audio")]\n')
    assert words_of(tmp_path / "odd.py") == {"video", "boxes", "imu", "audio"}


def test_no_code_outside_of_records_tells_a_value_by_the_class_of_a_medium():
    """Sounds, videos and their like are records to everybody else; the two faces hand their names on."""
    classes = {"Audio", "Video", "Depth", "Thermal", "Imu", "Mask", "Embedding"}
    found = [
        f"{path.relative_to(CORE)}:{node.lineno} {node.id}"
        for path in files()
        if path.name not in ("__init__.py", "plugin.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Name) and node.id in classes
    ]
    assert found == []
