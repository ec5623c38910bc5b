"""What a reader must convert is made by another process before it is asked for; whoever opens it tells what is wrong, as ever."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from modelgraft.kernel.words.errors import SourceError
from modelgraft.sources import converting, views, weights

LINES = SimpleNamespace(recorded_configs={}, weight_readers={".lines": "reader_of_lines:read"})
READER = """
import json, os, torch
from safetensors.torch import save_file

def peek(path):
    return {"model_type": "numbers"}

def read(path, folder):
    numbers = [float(word) for word in path.read_text().split()]
    (folder / "config.json").write_text(json.dumps({"model_type": "numbers", "process": os.getpid()}))
    save_file({"values": torch.tensor(numbers)}, folder / "model.safetensors")
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A reader that another process can import, a cache of its own, and two cores; a file of any size is worth it."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(converting, "WORTH_BYTES", 1)
    monkeypatch.setattr(converting, "LEAST_CORES", 1)
    (tmp_path / "reader_of_lines.py").write_text(READER)
    return tmp_path


def view_of(path: Path):
    return views.view(views.parse(str(path)), registry=LINES, folder=None, trusted=True, offline=True)


def converted(path: Path) -> None:
    converting.begin([view_of(path)])
    for thread in threading.enumerate():
        if thread.name == "converting":
            thread.join(120)


@pytest.mark.slow
def test_another_process_converts_what_this_one_opens(home):
    """Its numbers are those of the file."""
    (home / "a.lines").write_text("2 3 5")
    converted(home / "a.lines")
    found = weights.open(view_of(home / "a.lines"), offline=True)
    assert found.tensor("values").tolist() == [2.0, 3.0, 5.0]
    assert json.loads((found.folder / "config.json").read_text())["process"] != os.getpid()


@pytest.mark.slow
def test_what_cannot_be_converted_is_told_by_who_opens_it(home):
    """The other process ends without a word."""
    (home / "a.lines").write_text("two")
    converted(home / "a.lines")
    with pytest.raises(SourceError, match="source-damaged"):
        weights.open(view_of(home / "a.lines"), offline=True)


@pytest.mark.parametrize(("name", "value"), [("WORTH_BYTES", 1 << 20), ("LEAST_CORES", 1 << 20)])
def test_small_files_and_single_cores_have_no_use_for_it(home, monkeypatch, name, value):
    """No process is started, and whoever opens the file converts it."""
    monkeypatch.setattr(converting, name, value)
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
    (home / "a.lines").write_text("2 3 5")
    converted(home / "a.lines")
    assert weights.open(view_of(home / "a.lines"), offline=True).tensor("values").tolist() == [2.0, 3.0, 5.0]
