"""Exports that are made beside the answers of torch, by a process of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import modelgraft as mg
from modelgraft.engine import states
from modelgraft.engine.meanwhile import folder_of_states
from modelgraft.engine.states import State

pytestmark = pytest.mark.slow  # it exports, in processes of their own

GRAPH = """
modelgraft: 1
inputs: {x: "float[batch n 64]"}
nodes: {a: {use: projector/mlp, with: {in_features: 64, out_features: 64}, in: {x: inputs.x}}}
outputs: {y: a}
"""
# Answers once, says what it was told, and waits to be stopped. `limit`: bytes that a file may have, as on a disk that is full.
CHILD = """
import resource, sys, time
import torch
import modelgraft as mg
name, limit = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
with mg.open(name, backend="auto", init="random") as pipeline:
    result = pipeline.run(x=torch.ones(1, 2, 64))
    print([text for text in result.warnings if "random" not in text], flush=True)
    time.sleep(600)
"""
LATER = "a: answers on torch until its export for onnx is there, which is made in the background from the first answer on"


@pytest.fixture
def graph(tmp_path, monkeypatch):
    """A graph of one node, a cache of its own, and processes in the background."""
    monkeypatch.delenv("MODELGRAFT_BACKGROUND", raising=False)
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "g.yaml").write_text(GRAPH)
    return tmp_path / "g.yaml"


def start_and_stop(graph: Path, *, limit: int = 1 << 30) -> str:
    """Start the graph in a terminal of its own, and press Ctrl-C there once it has answered; gives what it was told."""
    words = [sys.executable, "-W", "ignore", "-c", CHILD, str(graph), str(limit)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=os.environ, start_new_session=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)
        process.wait()
    return said


def over(is_so: Callable[[State], bool]) -> State:
    """How the only work that was left has ended."""
    for _ in range(1200):
        found = [states.read(folder_of_states(), file.stem) for file in folder_of_states().glob("*.json")]
        if found and is_so(found[0]) and not states.is_under_way(folder_of_states(), next(folder_of_states().glob("*.json")).stem):
            return found[0]
        time.sleep(0.25)
    pytest.fail(f"nothing came of it: {found}")


def told(pipeline: mg.Pipeline) -> list[str]:
    return [text for text in pipeline.load() if "random" not in text]


def test_an_export_goes_on_when_who_wanted_it_is_stopped_and_the_next_start_uses_it(graph, tmp_path):
    """It is what torch gives, and nothing of it is left to be made."""
    assert start_and_stop(graph).strip() == str([LATER])
    assert over(lambda state: state.is_over).made
    x = torch.randn(2, 3, 64, generator=torch.Generator().manual_seed(0))
    with mg.open(graph, backend="auto", init="random") as pipeline, mg.open(graph, init="random") as usual:
        assert told(pipeline) == []
        assert (pipeline.run(x=x)["y"] - usual.run(x=x)["y"]).abs().max() <= 1e-4
        assert list(pipeline.backend("onnx").exports) == ["a"]


@pytest.mark.whole(
    "tests/plugins/onnx/test_later.py::test_what_cannot_be_exported_is_known_at_the_next_start",
    "tests/plugins/onnx/test_later.py::test_an_export_goes_on_when_who_wanted_it_is_stopped_and_the_next_start_uses_it",
)
def test_a_disk_without_room_is_told_at_the_next_start_and_tried_again(graph):
    """Nothing of the attempt is left, and torch answers."""
    start_and_stop(graph, limit=8192)
    assert "cannot be used" in over(lambda state: state.is_over).failed
    assert not list((folder_of_states().parent / "exports").glob("*/*/*"))
    said = start_and_stop(graph)
    assert "that has failed before (" in said
    assert over(lambda state: state.made).made


def test_a_pipeline_that_stays_open_goes_over_to_its_export(graph):
    """Between two calls, with the same numbers."""
    x = torch.ones(1, 2, 64)
    with mg.open(graph, backend="auto", init="random", cache_bytes=0) as pipeline:
        assert told(pipeline) == [LATER]
        first = pipeline.run(x=x)
        over(lambda state: state.is_over)
        time.sleep(0.6)  # it looks twice a second
        second = pipeline.run(x=x)
        assert "a: answers on onnx from here on: its export for onnx is there" in second.warnings
        assert (first["y"] - second["y"]).abs().max() <= 1e-4
        assert list(pipeline.backend("onnx").exports) == ["a"]


def test_what_cannot_be_exported_is_known_at_the_next_start(graph, monkeypatch):
    """It is not tried again beside the answers: torch keeps it, and says why."""
    from modelgraft.plugin import ExportError
    from modelgraft_plugins.onnx import plain

    def refused(*_, **__):
        raise ExportError("its operator has no ONNX form")

    monkeypatch.setattr(plain, "write", refused)
    with mg.open(graph, backend="onnx", init="random") as pipeline, pytest.raises(mg.GraphError, match="no ONNX form"):
        pipeline.load()
    with mg.open(graph, backend="auto", init="random") as pipeline:
        assert told(pipeline) == [
            "a (projector/mlp) cannot run on the onnx backend: its operator has no ONNX form; it stays on torch",
        ]
