"""NaN and infinity are told at the node where they begin."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file

import modelgraft as mg
from support.running import document, function, graph_of, registry_of

FLOATS = {"x": "float[batch tokens 3]"}
BACKENDS = {"register_backends": mg.hookimpl(lambda register: register("torch", "modelgraft_plugins.torch.backend:TorchBackend"))}


class Scale(torch.nn.Module):
    """Multiply, and shift."""

    def __init__(self, config):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.ones(3))
        self.shift = torch.nn.Parameter(torch.zeros(3))
        self.register_buffer("mask", torch.full((1,), float("-inf")))  # as causal masks are kept: no mistake

    def forward(self, x):
        """Scale."""
        return x * self.factor + self.shift


def opened(tmp_path, monkeypatch, **spoilt):
    """first -> second, two scalings with weights of their own, then a sum; `spoilt` gives a tensor of `second`."""
    home = ModuleType("toy_finite")
    home.Scale = Scale
    monkeypatch.setitem(sys.modules, "toy_finite", home)

    @mg.component("toy/scale", kind="projector", module="toy_finite:Scale", inputs=FLOATS, outputs={"y": "float[batch tokens 3]"})
    class Declared(mg.Config):
        """Scale."""

    for name, tensors in (("first", {}), ("second", spoilt)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        state = {"factor": torch.ones(3), "shift": torch.zeros(3), "mask": torch.full((1,), float("-inf"))}
        save_file({**state, **tensors}, folder / "model.safetensors")
    total = function("toy/sum", FLOATS, {"y": "float[batch tokens]"}, lambda x: x.sum(-1))
    nodes = {
        "first": {"use": "toy/scale", "from": "./first", "in": {"x": "inputs.x"}},
        "second": {"use": "toy/scale", "from": "./second", "in": {"x": "first"}},
        "total": {"use": "toy/sum", "in": {"x": "second"}},
    }
    graph = graph_of(registry_of(Declared, total, **BACKENDS), tmp_path, document(nodes, inputs=FLOATS, outputs={"total": "total"}))
    return mg.open(graph, backend="torch", device="cpu", cache_bytes=0)


@pytest.mark.parametrize(("value", "said"), [(float("nan"), "NaN"), (float("inf"), "infinity")])
def test_a_checkpoint_that_holds_no_numbers_is_named_with_its_tensor_in_every_run(value, said, tmp_path, monkeypatch):
    """Once a run, at the node that has it: not at those that only pass it on."""
    with opened(tmp_path, monkeypatch, shift=torch.tensor([0.0, value, 0.0])) as pipeline:
        results = [pipeline.run(x=torch.ones(2, 5, 3)) for _ in range(3)]
    text = f"second: its weights hold {said} (shift), and so does what it gives (y): the checkpoint is damaged"
    assert [result.warnings for result in results] == [(text,)] * 3


def test_several_tensors_are_counted(tmp_path, monkeypatch):
    """The first in the order of the module is named."""
    odd = torch.tensor([1.0, float("nan"), 1.0])
    with opened(tmp_path, monkeypatch, factor=odd, shift=odd.clone()) as pipeline:
        (warning,) = pipeline.run(x=torch.ones(2, 5, 3)).warnings
    assert "its weights hold NaN (factor and 1 more)" in warning


def test_numbers_are_nothing_to_tell(tmp_path, monkeypatch):
    """A mask of infinities that is no weight is none either."""
    with opened(tmp_path, monkeypatch) as pipeline:
        assert pipeline.run(x=torch.ones(2, 5, 3)).warnings == ()


def test_what_was_given_as_nan_is_nobodys_fault(tmp_path, monkeypatch):
    """The user knows what was put in."""
    with opened(tmp_path, monkeypatch) as pipeline:
        assert pipeline.run(x=torch.full((2, 5, 3), float("nan"))).warnings == ()


def test_nan_that_comes_of_numbers_is_told_where_it_begins(tmp_path, monkeypatch):
    """Infinity less infinity: the weights are sound, and the node is named all the same."""
    with opened(tmp_path, monkeypatch, factor=torch.full((3,), 3e38), shift=torch.full((3,), -3e38)) as pipeline:
        x = torch.full((2, 5, 3), 3e38)
        x[0, 0, 0] = -3e38
        (warning,) = pipeline.run(x=x).warnings
    assert warning.startswith("total: its output y holds NaN, and it was given infinity: look for values too large for its dtype")
