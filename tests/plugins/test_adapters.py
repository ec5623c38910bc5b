"""LoRA grafted into a host, against the formula and against peft's own files."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest
import torch

from modelgraft import Config, SourceError, component
from modelgraft.engine.backend import LoadContext
from modelgraft.engine.modules.grafting import count_adapters
from modelgraft.kernel.words.graph import Adapter
from modelgraft.testing import node_of
from modelgraft_plugins.adapters import Lora
from modelgraft_plugins.adapters.lora import graft
from modelgraft_plugins.torch.backend import TorchBackend

PEFTS = SimpleNamespace(states=lambda *_, **__: None)  # what is known of a file that peft has written


class Host(torch.nn.Module):
    """Two linear layers under a wrapper name."""

    def __init__(self, config):
        super().__init__()
        self.inner = torch.nn.ModuleDict({"q_proj": torch.nn.Linear(5, 7), "v_proj": torch.nn.Linear(7, 3)})

    def forward(self, x):
        """Chain them."""
        return self.inner["v_proj"](self.inner["q_proj"](x))


def host_node(adapters):
    home = ModuleType("toy_host")
    home.Host = Host
    sys.modules["toy_host"] = home

    @component("toy/host", kind="encoder", module="toy_host:Host", inputs={"x": "float[batch 5]"}, outputs={"y": "float[batch 3]"})
    class Toy(Config):
        """Chain."""

    return replace(node_of(Toy), adapters=adapters)


def adapter(**config):
    return Adapter(Lora.__component__, Lora(**config), None, ())


def load(adapters):
    context = LoadContext(host_node(adapters), "cpu", "float32", None, 0, offline=True, registry=None, init="random")
    return TorchBackend().load(context, {})


def test_a_new_update_changes_nothing_yet():
    """Before training the host answers as without it."""
    x = torch.randn(2, 5)
    assert torch.equal(load((adapter(rank=2),)).call(x), load(()).call(x))


def test_the_update_is_the_papers_formula():
    """y = W x + b + (alpha / rank) B A x, in both layers, from a file in peft's layout."""
    base = load(()).state
    generator = torch.Generator().manual_seed(3)
    state = {
        "base_model.model.q_proj.lora_A.weight": torch.randn(2, 5, generator=generator),
        "base_model.model.q_proj.lora_B.weight": torch.randn(7, 2, generator=generator),
        "base_model.model.v_proj.lora_A.weight": torch.randn(2, 7, generator=generator),
        "base_model.model.v_proj.lora_B.weight": torch.randn(3, 2, generator=generator),
    }
    weights = SimpleNamespace(state=lambda: state, view=PEFTS)
    context = LoadContext(host_node(()), "cpu", "float32", weights, 0, offline=True, registry=None)
    grafted = graft(Lora(rank=2, alpha=6.0), context)(load(()).state)
    x = torch.randn(4, 5)

    def updated(layer, name, x):
        a, b = (state[f"base_model.model.{name}.lora_{letter}.weight"] for letter in "AB")
        return x @ layer.weight.T + layer.bias + (6.0 / 2) * (x @ a.T) @ b.T

    expected = updated(base.inner["v_proj"], "v_proj", updated(base.inner["q_proj"], "q_proj", x))
    assert torch.allclose(grafted(x), expected, atol=1e-5)


def test_names_of_training_are_those_that_peft_saves():
    """`lora_A.default.weight`, as a state dict of a model in training has it; of two adapters nobody knows which is meant."""
    context = LoadContext(host_node(()), "cpu", "float32", None, 0, offline=True, registry=None)
    generator = torch.Generator().manual_seed(3)
    shapes = {"q_proj.lora_A": (2, 5), "q_proj.lora_B": (7, 2), "v_proj.lora_A": (2, 7), "v_proj.lora_B": (3, 2)}
    state = {f"base_model.model.{name}.weight": torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    trained = {key.replace(".weight", ".default.weight"): tensor for key, tensor in state.items()}
    files = (SimpleNamespace(state=lambda given=given: given, view=PEFTS) for given in (state, trained))
    saved, training = (graft(Lora(rank=2), replace(context, weights=one))(load(()).state) for one in files)
    x = torch.randn(4, 5)
    assert (training(x) - load(()).state(x)).abs().max() > 0.1
    torch.testing.assert_close(training(x), saved(x), rtol=0, atol=0)
    two = trained | {key.replace(".default", ".other"): tensor for key, tensor in trained.items()}
    with pytest.raises(SourceError, match="it holds several, default, other: save one of them"):
        graft(Lora(rank=2), replace(context, weights=SimpleNamespace(state=lambda: two, view=PEFTS)))(load(()).state)


def test_merged_into_its_host_it_gives_the_same_numbers():
    """As an export wants it: the layers are plain ones again, with other weights."""
    context = LoadContext(host_node(()), "cpu", "float32", None, 0, offline=True, registry=None)
    generator = torch.Generator().manual_seed(3)
    shapes = {"q_proj.lora_A": (2, 5), "q_proj.lora_B": (7, 2), "v_proj.lora_A": (2, 7), "v_proj.lora_B": (3, 2)}
    state = {f"base_model.model.{name}.weight": torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    context = replace(context, weights=SimpleNamespace(state=lambda: state, view=PEFTS))
    beside, merged = (graft(Lora(rank=2), replace(context, merge=merge))(load(()).state) for merge in (False, True))
    assert {name for name, _ in merged.named_parameters()} == {name for name, _ in load(()).state.named_parameters()}
    x = torch.randn(4, 5, generator=generator)
    assert (beside(x) - load(()).state(x)).abs().max() > 0.1
    torch.testing.assert_close(merged(x), beside(x), rtol=1e-5, atol=1e-6 * float(beside(x).detach().abs().max()))  # large terms cancel


def test_nan_in_an_update_is_told_when_it_is_merged():
    """Whoever exports the host learns which layer it is."""
    context = LoadContext(host_node(()), "cpu", "float32", None, 0, offline=True, registry=None, merge=True)
    shapes = {"q_proj.lora_A": (2, 5), "q_proj.lora_B": (7, 2)}
    state = {f"base_model.model.{name}.weight": torch.full(shape, float("nan")) for name, shape in shapes.items()}
    context = replace(context, weights=SimpleNamespace(state=lambda: state, view=PEFTS))
    with pytest.raises(SourceError, match=r"the updates of inner\.q_proj make NaN of the weights of node"):
        graft(Lora(rank=2, targets=("q_proj",)), context)(load(()).state)


def test_its_parameters_are_counted_without_memory():
    """rank * (in + out) for each target."""
    assert count_adapters(host_node((adapter(rank=2, targets=("q_proj", "v_proj")),)), registry=None) == 2 * (5 + 7) + 2 * (7 + 3)


def test_a_layer_that_is_not_there_is_named_with_those_that_are():
    """A slip in `targets` is an error."""
    with pytest.raises(SourceError, match="has no linear layer named k_proj; it has q_proj, v_proj"):
        load((adapter(targets=("k_proj",)),))


def test_a_file_that_does_not_fit_is_refused():
    """A tensor without a place, and a place without a tensor."""
    context = LoadContext(host_node(()), "cpu", "float32", None, 0, offline=True, registry=None)
    stray = SimpleNamespace(state=lambda: {"base_model.model.k_proj.lora_A.weight": torch.zeros(2, 5)}, view=PEFTS)
    with pytest.raises(SourceError, match=r"k_proj\.lora_A.weight .* has no place in the host: 0 layers end like it"):
        graft(Lora(rank=2), replace(context, weights=stray))(load(()).state)
    empty = SimpleNamespace(state=dict, view=PEFTS)
    with pytest.raises(SourceError, match=r"4 missing: inner\.q_proj\.lora_A\.weight"):
        graft(Lora(rank=2), replace(context, weights=empty))(load(()).state)
