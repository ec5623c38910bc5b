"""ONNX sessions under `max_memory`: measured by the files that they opened, and gone when they are let go of."""

from __future__ import annotations

import gc
import weakref

import numpy
import pytest
import torch

import modelgraft as mg
from modelgraft.engine.measuring import metered
from modelgraft_plugins.onnx.memory import noted
from support.installed import registry
from support.running import graph_of

REGISTRY = registry()
WIDTH = 96
X = torch.arange(2.0 * WIDTH).reshape(1, 2, WIDTH) / WIDTH
ONE = (WIDTH * WIDTH + WIDTH) * 4


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Exports of these tests alone."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "cache"))


def graph(tmp_path, nodes, outputs):
    inputs = {"x": f"float[batch tokens {WIDTH}]"}
    return graph_of(REGISTRY, tmp_path, {"modelgraft": 1, "name": "toy", "inputs": inputs, "nodes": nodes, "outputs": outputs})


def linear(source, **more):
    return {"use": "projector/linear", "with": {"out_features": WIDTH}, "in": {"x": source}, **more}


@pytest.mark.slow  # it exports
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_a_session_that_was_let_go_of_is_gone(tmp_path):
    """The next use opens it again, and gives the same."""
    nodes = {"a": linear("inputs.x", lazy=True), "b": linear("inputs.x", lazy=True)}
    solved = graph(tmp_path, nodes, {"y": "a", "z": "b"})
    with mg.open(solved, backend="onnx", cache_bytes=0, max_memory=2 * ONE - 1) as pipeline:
        wanted = pipeline.run(x=X, outputs=["y"])["y"]
        (row,) = (row for row in pipeline.memory.rows if row.measured is not None)
        assert (row.what, row.planned) == ("a", ONE)
        assert ONE <= row.measured < 2 * ONE  # the weights, and the graph around them
        session = weakref.ref(next(iter(pipeline._loader.loaded()["a"].call.sessions.values())).session)
        released = [event for event in pipeline.stream(x=X, outputs=["z"]) if event.kind == "node-released"]
        assert [(event.node, event.bytes) for event in released] == [("a", row.measured)]
        gc.collect()
        assert session() is None
        assert torch.equal(pipeline.run(x=X, outputs=["y"])["y"], wanted)


@pytest.mark.slow  # it exports
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_nodes_that_are_one_session_go_together(tmp_path):
    """It is let go of after each use when one of them is not kept."""
    nodes = {"a": linear("inputs.x"), "b": linear("a", runtime={"keep": False})}
    with mg.open(graph(tmp_path, nodes, {"y": "b"}), backend="onnx", cache_bytes=0) as pipeline:
        (step,) = pipeline.plan.steps
        first = pipeline.run(x=X)["y"]
        assert pipeline.memory.taken == {"cpu": 0}
        assert [row.what for row in pipeline.memory.rows] == [step.node.name]
        assert torch.equal(pipeline.run(x=X)["y"], first)


@pytest.mark.slow  # it exports
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_nodes_that_share_weights_run_one_session(tmp_path):
    """What reads the one that lends them is not joined with it, which would hold them once more; all of them count once."""
    nodes = {"a": linear("inputs.x"), "b": linear("a", share="a"), "c": linear("b", share="a")}
    with mg.open(graph(tmp_path, nodes, {"y": "c"}), backend="onnx", cache_bytes=0) as pipeline:
        found = pipeline.run(x=X, outputs=["a.y", "c.y"])
        (session,) = {each.session for loaded in pipeline._loader.loaded().values() for each in loaded.call.sessions.values()}
        assert ONE <= pipeline.memory.taken["cpu"] < 2 * ONE
    once, thrice = found["a.y"].numpy(), found["c.y"].numpy()
    for _ in range(2):
        (once,) = session.run(None, {session.get_inputs()[0].name: once})
    assert numpy.array_equal(once, thrice)


def test_a_session_takes_what_its_files_do(tmp_path):
    """As far as they are there."""
    (tmp_path / "model.onnx").write_bytes(b"x" * 100)
    (tmp_path / "model.onnx.data").write_bytes(b"x" * 5000)
    with metered() as found, noted("cpu", tmp_path, ("model.onnx", "model.onnx.data", "gone")):
        pass
    assert [(device, size) for (device, _), size in found.items()] == [("cpu", 5100)]


@pytest.mark.parametrize(("device", "times"), [("cpu", 1), ("cuda:0", 2)])
def test_what_two_nodes_open_counts_once_where_they_run_one_session(tmp_path, device, times):
    """On the host; on a GPU each opens its own."""
    (tmp_path / "model.onnx").write_bytes(b"x" * 100)
    with metered() as found:
        for _ in range(2):
            with noted(device, tmp_path, ("model.onnx",)):
                pass
    assert sum(size for (place, _), size in found.items() if place == device) == 100 * times
