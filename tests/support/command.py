"""The command line in an empty folder with the toys alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from modelgraft.cli import main
from support import toys

CAPITALS = """# Write in capitals.
modelgraft: 1
inputs: {text: text}
nodes:
  big: {use: toy/upper, in: {text: inputs.text}}
outputs: {text: big}
"""
WRONG = """modelgraft: 1
inputs: {text: text}
nodes:
  big: {use: toy/uper, in: {text: inputs.text}}
  small: {use: toy/upper, in: {txt: inputs.text}}
outputs: {text: big}
"""
FAILING = CAPITALS.replace("toy/upper", "toy/fail")

Run = Callable[..., tuple[int, str, str]]


def commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """What runs a command there; it gives the exit code, stdout and stderr, and no command shows a traceback."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("modelgraft.installed.discovery.discover", toys.registry)
    for name, text in {"capitals": CAPITALS, "wrong": WRONG, "failing": FAILING}.items():
        Path(f"{name}.yaml").write_text(text, encoding="utf-8")
    Path("diamond.yaml").write_text("# A diamond.\nmodelgraft: 1\n" + toys.DIAMOND, encoding="utf-8")
    Path("sight.yaml").write_text("# An eye.\nmodelgraft: 1\n" + toys.SIGHT, encoding="utf-8")

    def run_command(*words: str) -> tuple[int, str, str]:
        code = main(words)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.out, captured.err

    return run_command
