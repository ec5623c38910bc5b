"""Driven components on ONNX Runtime: each part a session, the loop the same."""

from __future__ import annotations

import pytest
import torch

import modelgraft as mg
from modelgraft.engine.backend import LoadContext
from modelgraft.installed.discovery import discover
from modelgraft.kernel.words.ports import Ports
from modelgraft.plugin import ExportError
from modelgraft.testing import node_of
from modelgraft_plugins.onnx import store
from modelgraft_plugins.onnx.backend import OnnxBackend
from support import settling
from support.settling import SettleConfig, Settling, settled

TORCH = discover(only=("torch",))
pytestmark = [
    pytest.mark.slow,  # it exports
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODELGRAFT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def loaded(*, rounds=3, fallback=None, **config):
    node = node_of(SettleConfig, {"rounds": rounds, **config})
    backend = OnnxBackend()
    context = LoadContext(node, "cpu", "float32", None, 0, offline=True, registry=TORCH, init="random", fallback=fallback)
    return backend, backend.load(context, {})


def draw(*shape, seed=3):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def module_of_seed():
    """The module as the torch backend makes it of the seed."""
    from modelgraft_plugins.torch.backend import TorchBackend

    node = node_of(SettleConfig)
    return TorchBackend().load(LoadContext(node, "cpu", "float32", None, 0, offline=True, registry=TORCH, init="random"), {}).state


def test_each_part_is_exported_and_the_loop_is_the_same():
    """In numbers as by the formula, whatever the batch; the exports are there by node and part, each proven."""
    backend, part = loaded()
    for batch in (1, 4):
        state, push = draw(batch, 6), draw(batch, 6, seed=4)
        found = part.call(state, push)
        for name, expected in zip(("state", "value"), settled(module_of_seed(), state, push, 3), strict=True):
            assert (found[name] - expected).abs().max() <= 1e-4, name
    assert sorted(backend.exports) == ["node.field", "node.reading"]
    assert all(entry.manifest["parity"]["relative"] <= 1e-4 for entry in backend.exports.values())
    assert part.state is None


def test_what_is_kept_needs_no_module(monkeypatch):
    """The loop is told by the manifests what the module would have said."""
    loaded()
    monkeypatch.setattr(Settling, "__init__", None)
    _, part = loaded()
    assert part.loop.facts == {"share": 0.5}
    part.call(draw(2, 6), None)


def test_settings_of_the_loop_that_change_no_graph_may_be_left_out(monkeypatch):
    """`export_facts` says which do."""
    loaded()
    monkeypatch.setattr(SettleConfig, "export_facts", lambda self: {"width": self.width})
    loaded(rounds=1)
    monkeypatch.setattr(Settling, "__init__", None)
    loaded(rounds=7)


def test_two_parts_alike_are_two_exports(monkeypatch):
    """The name of a part is in its key: it stands for other weights."""
    alike = {"field": settling.PARTS["field"], "other": settling.PARTS["field"]}
    monkeypatch.setattr(SettleConfig, "declared_parts", alike)
    monkeypatch.setattr(Settling, "parts", lambda self, names: {"field": self.field, "other": settling.Field(6)})
    backend, _ = loaded()
    folders = {entry.folder for entry in backend.exports.values()}
    assert len(folders) == 2
    assert all((folder / store.GRAPH).is_file() for folder in folders)


class Branching(torch.nn.Module):
    """What cannot be traced: Python decides by a number of the data."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, state):
        return {"value": state[:, :1] * (self.weight if float(state.sum()) > 0 else -self.weight), "size": state.abs().sum(-1)}


def test_a_part_that_cannot_be_exported_is_named(monkeypatch):
    """With the way out, and with fallback the whole component stays on torch."""
    plain = Settling.__init__

    def branching(self, config):
        plain(self, config)
        self.reading = Branching()

    monkeypatch.setattr(Settling, "__init__", branching)
    monkeypatch.setattr(SettleConfig, "export_facts", lambda self: {"branching": True})
    with pytest.raises(mg.GraphError, match=r"node \(toy/settle\) cannot run on the onnx backend: its part reading: "):
        loaded()
    _, part = loaded(fallback="torch")
    assert any("its part reading" in text and "it stays on torch" in text for text in part.warnings)
    assert part.call(draw(2, 6), None)["value"].shape == (2,)


def test_a_part_of_records_is_refused(monkeypatch):
    """Only tensors go in and out of a graph."""
    from modelgraft_plugins.onnx import driven

    with pytest.raises(ExportError, match="its part ear: sound is audio, not a tensor"):
        driven._signature("ear", Ports.of({"sound": "audio"}, {"y": "float[batch]"}), {})
