"""A plugin that does what plugins must not, installed where the processes that a test starts find it."""

from __future__ import annotations

from pathlib import Path

import pytest

SOURCE = '''
"""A plugin with a component that does what it is told, whatever that is."""

import ctypes
import os
import sys
import time

from modelgraft import component, hookimpl


@component("odd/act", kind="preprocess", inputs={"text": "text"}, outputs={"text": "text"})
def act(text: list[str], *, do: str = "", when: str = "") -> list[str]:
    """Write in capitals, and do something beside it where a text holds a word."""
    if any(when in one for one in text):
        if do == "exit":
            os._exit(3)
        elif do == "segfault":
            ctypes.string_at(0)
        elif do == "hang":
            time.sleep(600)
        elif do == "raise":
            raise ValueError("no luck")
        elif do == "quit":
            raise SystemExit(0)
        elif do == "print":
            print("{\\"found\\": 1}")
            sys.stdout.flush()
            os.write(1, b"{\\"found\\": 2}\\n")
            os.system("echo '{\\"found\\": 3}'")
            sys.stdin.read()
        elif do == "child":
            import subprocess

            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)  # " + os.environ["ODD_MARK"]])
            time.sleep(600)
    return [one.upper() for one in text]


@hookimpl
def register_components(register):
    register(act)
'''
GRAPH = """# Text in capitals, by a node that does what it is told.
modelgraft: 1
inputs: {text: text}
nodes:
  first: {use: odd/act, in: {text: inputs.text}}
  act: {use: odd/act, in: {text: first}}
outputs: {text: act}
"""


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the plugin where processes find it that are started from here; gives a graph of it."""
    (folder / "odd.py").write_text(SOURCE, encoding="utf-8")
    facts = folder / "odd-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n", encoding="utf-8")
    (facts / "entry_points.txt").write_text("[modelgraft]\nodd = odd\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    graph = folder / "odd.yaml"
    graph.write_text(GRAPH, encoding="utf-8")
    return graph
