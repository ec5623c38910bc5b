"""Layers that are alike are traced once, and a graph is right whichever of them it reads."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from modelgraft.engine.modules.signatures import Signature
from modelgraft.kernel.words.ports import port
from modelgraft_plugins.onnx import plain
from modelgraft_plugins.onnx.calling import Exported
from modelgraft_plugins.onnx.exporting import export, flat, open_fresh
from modelgraft_plugins.onnx.repeating import alike

SIGNATURE = Signature(
    (("x", port("float[batch tokens 6]")),), (("y", port("float[batch tokens 6]")), ("middle", port("float[batch tokens 6]")))
)


class Layer(torch.nn.Module):
    """Mixes tokens by a mask and widens numbers; what it gives beside the hidden numbers is the mask again."""

    def __init__(self, scale=1.0, idx=0):
        super().__init__()
        self.norm, self.up, self.down = torch.nn.LayerNorm(6), torch.nn.Linear(6, 10), torch.nn.Linear(10, 6)
        self.scale, self.idx = scale, idx
        self.register_buffer("shift", torch.randn(6))

    def forward(self, hidden, *, mask, kept=None, extra=()):
        """hidden float[batch tokens 6], mask float[batch tokens]."""
        mixed = hidden + (self.norm(hidden) * mask[..., None]).mean(1, keepdim=True) + self.shift
        if kept is not None:
            kept.append(mixed)
        return hidden + self.scale * self.down(self.up(mixed).tanh()), mask


class Tower(torch.nn.Module):
    """Gives what comes after all layers, and after the second of them."""

    def __init__(self, layers, *, keeps=False):
        super().__init__()
        self.layers, self.keeps = torch.nn.ModuleList(layers), keeps
        self.head = torch.nn.Linear(6, 6)
        for value in self.parameters():
            torch.nn.init.normal_(value, std=0.4)
        for layer in self.layers[:1]:  # equal numbers in the layer that is traced alone
            torch.nn.init.zeros_(layer.norm.bias)
            torch.nn.init.zeros_(layer.down.bias)

    def forward(self, x):
        """x float[batch tokens 6]."""
        kept = [] if self.keeps else None
        states, mask = [], x[..., 0].sigmoid()
        for layer in self.layers:
            hidden, mask = layer(states[-1] if states else x, mask=mask, kept=kept)
            states.append(hidden)
        middle = states[1] if kept is None else sum(kept)
        return {"y": self.head(states[-1]), "middle": middle}


class ByNumber(Layer):
    """A layer that computes with its number, which is told from no setting."""

    def forward(self, hidden, *, mask, kept=None):
        """As Layer does, and then times its number."""
        hidden, mask = super().forward(hidden, mask=mask, kept=kept)
        return hidden * (1 + self.idx / 10), mask


class Nearly(Layer):
    """The same with less of it."""

    def forward(self, hidden, *, mask, kept=None):
        """As Layer does, and then times nearly 1."""
        hidden, mask = super().forward(hidden, mask=mask, kept=kept)
        return hidden * (1 + self.idx / 100), mask


def towers(kind=Layer, count=3, **options):
    """A flat module around a tower of layers that are numbered."""
    torch.manual_seed(0)
    return flat(Tower([kind(idx=index) for index in range(count)], **options), ports=["x"], wired=["x"], outputs=["y", "middle"])


def assert_right(whole, path):
    """Compare a graph with its module, every number of both outputs, on sizes that were not traced."""
    exported = Exported(open_fresh(path), device="cpu")
    for batch, tokens in ((1, 4), (3, 5)):
        x = torch.randn(batch, tokens, 6)
        with torch.no_grad():
            expected = whole(x)
        for mine, theirs in zip(exported(x), expected, strict=True):
            np.testing.assert_allclose(mine, theirs.numpy(), atol=1e-5, rtol=1e-5)


def test_layers_are_of_a_kind_by_what_they_are_built_of():
    """Classes, shapes and settings; their numbers tell them apart no more than their weights do."""
    layers = [Layer(idx=0), Layer(idx=1), Layer(scale=2.0, idx=2), Layer(idx=3), Layer(scale=2.0, idx=4), torch.nn.Identity()]
    found = alike(Tower(layers[:5]))
    assert [list(group.layers) for group in found] == [["layers.0", "layers.1", "layers.3"], ["layers.2", "layers.4"]]
    layers[1].up.register_forward_hook(lambda *_: None)
    layers[3].down = torch.nn.Linear(10, 6, bias=False)
    assert [list(group.layers) for group in alike(torch.nn.Sequential(*layers))] == [["2", "4"]]


def _holding(settings):
    """The kinds of layers that hold one more setting each, as numbers of layers."""
    layers = [Layer(idx=index) for index in range(len(settings))]
    for layer, setting in zip(layers, settings, strict=True):
        layer.more = setting
    return [[int(name) for name in group.layers] for group in alike(torch.nn.Sequential(*layers))]


def _hook(after):
    """A function that may call itself, and holds what is never set."""

    def hook(module, given, found):
        return hook(module, given, after(found)) if after else unset

    if after is Ellipsis:
        unset = None
    return hook


def test_functions_are_told_apart_by_their_code_and_mappings_by_their_keys():
    """Whatever they hold: themselves, too, or nothing yet."""
    wide = [lambda x: x * 2, lambda x: x * 3]
    assert _holding([wide[0], wide[1], wide[0], wide[1]]) == [[0, 2], [1, 3]]
    assert _holding([{1: "a"}, {2: "a"}, {1: "a"}]) == [[0, 2]]
    assert _holding([_hook(None), _hook(None), _hook(0)]) == [[0, 1]]
    again = [[1], [1], [2]]
    for each in again:
        each.append(each)
    assert _holding(again) == [[0, 1]]


@pytest.mark.slow  # it exports, as those below do
def test_a_graph_reads_any_layer_and_layers_keep_their_own_weights(tmp_path):
    """Also where the traced one has equal weights, and where not all are of a kind."""
    torch.manual_seed(0)
    kinds = [Layer(scale=2.0 if index in {2, 4} else 1.0, idx=index) for index in range(5)]
    whole = flat(Tower(kinds), ports=["x"], wired=["x"], outputs=["y", "middle"])
    assert export(whole, SIGNATURE, tmp_path / "model.onnx") == 3
    assert_right(whole, tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    assert {entry.domain for entry in model.opset_import} == {""}
    assert "forward" not in vars(kinds[0])  # the layers are what they were


@pytest.mark.slow
def test_layers_that_are_given_more_than_tensors_are_traced_one_by_one(tmp_path):
    """A list that each of them fills is no value of a graph."""
    whole = towers(keeps=True)
    assert export(whole, SIGNATURE, tmp_path / "model.onnx") == 0
    assert_right(whole, tmp_path / "model.onnx")


@pytest.mark.slow
def test_a_guess_that_was_wrong_is_found_by_the_gate(tmp_path):
    """Layers that compute with their numbers: the graph of copies is refused, and each layer is traced."""
    whole = towers(kind=ByNumber)
    assert export(whole, SIGNATURE, tmp_path / "model.onnx") == 2
    facts, _ = plain.write(whole, SIGNATURE, "float32", tmp_path)
    assert facts["repeated"] == 0
    assert_right(whole, tmp_path / "model.onnx")
    facts, _ = plain.write(towers(), SIGNATURE, "float32", tmp_path)
    assert facts["repeated"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["int8", "w4"])
def test_a_wrong_copy_does_not_hide_behind_fewer_bits(precision, tmp_path):
    """Layers that differ by less than what a quarter of the bits may: their float32 graph is looked at before."""
    whole = towers(kind=Nearly)
    facts, _ = plain.write(whole, SIGNATURE, precision, tmp_path)
    assert facts["repeated"] == 0
    facts, _ = plain.write(towers(), SIGNATURE, precision, tmp_path)
    assert facts["repeated"] == 2
