"""New modules: built once, each parameter drawn once, in the dtype that it runs in."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import pytest
import torch
from torch import nn

from modelgraft import Config, InputError, component
from modelgraft.engine.backend import LoadContext
from modelgraft.engine.modules.fresh import fresh
from modelgraft.testing import node_of


def context(build, *, seed=0, dtype="float32", name="node"):
    """A node whose module holds what `build()` gives, as `inner`; `built` counts the constructions."""

    class Module(nn.Module):
        built = 0

        def __init__(self, config):
            super().__init__()
            Module.built += 1
            self.inner = build()

    home = ModuleType("toy_drawing")
    home.Module = Module
    __import__("sys").modules["toy_drawing"] = home

    @component("toy/drawn", kind="projector", module="toy_drawing:Module", inputs={"x": "float[batch 3]"}, outputs={"y": "float[batch 3]"})
    class Drawn(Config):
        """Draw."""

    node = replace(node_of(Drawn), name=name)
    return LoadContext(node, "cpu", dtype, None, seed, offline=True, registry=None), Module


def drawn(build, **options):
    """The inner module of a new one."""
    return fresh(context(build, **options)[0])[0].inner


def test_the_numbers_follow_from_the_seed_the_node_and_the_name():
    """Not from the order of parameters, nor from those beside them."""
    one = drawn(lambda: nn.ModuleDict({"a": nn.Linear(5, 7), "b": nn.Linear(5, 7)}))
    other = drawn(lambda: nn.ModuleDict({"b": nn.Linear(5, 7), "c": nn.Linear(3, 2), "a": nn.Linear(5, 7)}))
    assert torch.equal(one["a"].weight, other["a"].weight)
    assert torch.equal(one["b"].weight, other["b"].weight)
    assert not torch.equal(one["a"].weight, one["b"].weight)
    for options in ({"seed": 1}, {"name": "other"}):
        assert not torch.equal(one["a"].weight, drawn(lambda: nn.ModuleDict({"a": nn.Linear(5, 7)}), **options)["a"].weight)


def test_a_module_is_built_once():
    """Its constructor is called once, and each parameter has memory and the dtype that was asked for."""
    given, module = context(lambda: nn.Linear(5, 7), dtype="bfloat16")
    made, warnings = fresh(given)
    assert module.built == 1
    assert warnings == ("node: 42 parameters start from random numbers (seed 0)",)
    assert {(parameter.dtype, parameter.device.type, parameter.requires_grad) for parameter in made.parameters()} == {
        (torch.bfloat16, "cpu", True)
    }


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_another_dtype_holds_the_same_numbers(dtype):
    """Those of float32, brought to it: also of parameters that are drawn in several pieces."""
    wanted = getattr(torch, dtype)
    one, other = (drawn(lambda: nn.Linear(1024, 515), dtype=kind) for kind in ("float32", dtype))
    assert other.weight.numel() > 1 << 18
    assert torch.equal(one.weight.to(wanted), other.weight)
    with pytest.raises(InputError, match="dtype 'float31' is not known"):
        drawn(lambda: nn.Linear(3, 3), dtype="float31")


def test_the_numbers_are_drawn_as_the_constructor_says():
    """Bounds and moments of torch's own initialisation, by their formulas, and what is written over a part of it."""

    def build():
        table, cut = nn.Embedding(4099, 64, padding_idx=3), nn.Linear(64, 4099)
        nn.init.trunc_normal_(cut.weight, mean=1.0, std=0.5, a=0.5, b=2.0)
        return nn.ModuleDict({"linear": nn.Linear(64, 4099), "norm": nn.LayerNorm(64), "table": table, "cut": cut})

    made = drawn(build, dtype="bfloat16")
    assert made["linear"].weight.abs().max().item() == pytest.approx(1 / 8, abs=1e-3)  # uniform, up to 1 / sqrt(64) on both sides
    assert made["linear"].weight.float().var().item() == pytest.approx((2 / 8) ** 2 / 12, rel=0.02)
    assert torch.equal(made["norm"].weight, torch.ones(64, dtype=torch.bfloat16))
    assert torch.equal(made["table"].weight[3], torch.zeros(64, dtype=torch.bfloat16))
    assert made["table"].weight.float().std().item() == pytest.approx(1.0, rel=0.02)
    cut, normal = made["cut"].weight.float(), torch.distributions.Normal(0.0, 1.0)
    low, high = torch.tensor(-1.0), torch.tensor(2.0)  # the bounds, in deviations from the mean
    share = normal.cdf(high) - normal.cdf(low)
    mean = 1.0 + 0.5 * (normal.log_prob(low).exp() - normal.log_prob(high).exp()) / share
    assert (cut.min().item(), cut.max().item()) == pytest.approx((0.5, 2.0), abs=0.01)
    assert cut.mean().item() == pytest.approx(mean.item(), abs=0.01)
    assert (cut == 0.5).float().mean().item() < 0.01  # cut off, not heaped up at the bound


def test_threads_change_nothing():
    """Each parameter has a generator of its own."""
    before = torch.get_num_threads()
    found = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append(drawn(lambda: nn.Sequential(*(nn.Linear(600, 500) for _ in range(5)))).state_dict())
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_what_is_drawn_in_vain_is_not_drawn():
    """What a library draws over is as if it alone had been drawn."""

    def twice():
        layer = nn.Linear(9, 11)
        nn.init.xavier_uniform_(layer.weight)
        nn.init.normal_(layer.weight, std=0.02)
        return layer

    def once():
        layer = nn.Linear(9, 11)
        nn.init.normal_(layer.weight.data, std=0.02)
        return layer

    assert torch.equal(drawn(twice).weight, drawn(once).weight)


class Own(nn.Module):
    """Numbers of its own making, a parameter that others share, and a buffer."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(0.02 * torch.randn(3, 5))
        self.scale = nn.Parameter(torch.tensor([2.5, -1.0]))
        self.head, self.tail = nn.Linear(5, 3, bias=False), nn.Linear(5, 3, bias=False)
        self.tail.weight = self.head.weight
        self.register_buffer("steps", torch.arange(4.0))
        self.frozen = nn.Parameter(torch.full((2,), 7.0), requires_grad=False)
        self.filled = nn.Parameter(torch.empty(2, 2).copy_(torch.eye(2)))
        self.mixed = nn.Parameter(torch.empty(6))
        with torch.no_grad():
            self.mixed.zero_()
            self.mixed[2:4] = 1.0
            self.mixed[4:].copy_(self.scale)


def test_what_a_constructor_computes_stands():
    """Computed parameters, constants, ties and buffers."""
    made = drawn(Own)
    assert 0.001 < made.table.std().item() < 0.1
    assert torch.equal(made.scale, torch.tensor([2.5, -1.0]))
    assert made.tail.weight is made.head.weight
    assert torch.equal(made.steps, torch.arange(4.0))
    assert not made.frozen.requires_grad
    assert torch.equal(made.filled, torch.eye(2))
    assert torch.equal(made.mixed, torch.tensor([0.0, 0.0, 1.0, 1.0, 2.5, -1.0]))
    assert torch.equal(drawn(Own).table, made.table)


class Orthogonal(nn.Module):
    """A matrix that is computed from others, and a copy of it."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)
        nn.init.orthogonal_(self.one.weight)
        with torch.no_grad():
            self.two.weight.copy_(self.one.weight)


def test_parameters_that_follow_from_others_do():
    """In float16 too, where the matrix itself could not be computed."""
    made = drawn(Orthogonal)
    assert torch.allclose(made.one.weight @ made.one.weight.T, torch.eye(6), atol=1e-5)
    assert torch.equal(made.one.weight, made.two.weight)
    assert torch.equal(drawn(Orthogonal, dtype="float16").one.weight, made.one.weight.half())


def test_copies_of_layers_start_alike():
    """As torch makes them: `nn.TransformerEncoder` copies its first layer."""
    made = drawn(lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2, enable_nested_tensor=False))
    one, two = (dict(layer.named_parameters()) for layer in made.layers)
    assert all(torch.equal(one[name], two[name]) and one[name] is not two[name] for name in one)
    assert one["linear1.weight"].std().item() > 0.01


class Looking(nn.Module):
    """A constructor that reads the numbers that it drew."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("peak", self.layer.weight.detach().abs().max())
        self.first, self.row = self.layer.bias.detach()[0].item(), self.layer.bias.detach().numpy().copy()
        self.gate = nn.Parameter(torch.empty(3))
        self.gate.detach().numpy()[:] = 5.0
        self.plain = torch.empty(70_000).uniform_(2, 3)


def test_a_constructor_that_looks_at_its_numbers_sees_them():
    """They are drawn for it, and repeated all the same, past torch's operators too."""
    made = drawn(Looking)
    assert made.peak == made.layer.weight.abs().max()
    assert made.first == made.layer.bias[0].item()
    assert made.row.tolist() == made.layer.bias.tolist()
    assert made.gate.tolist() == [5.0] * 3
    assert 2 <= made.plain.min() < 2.01 < 2.99 < made.plain.max() <= 3
    assert torch.equal(drawn(Looking).layer.weight, made.layer.weight)


def test_the_programs_own_numbers_are_left_alone():
    """Its generator does not move, and modules that are built afterwards have memory."""
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    drawn(lambda: nn.Linear(5, 7))
    drawn(Looking)
    assert torch.equal(torch.rand(2), expected)
    assert not nn.Linear(2, 2).weight.is_meta
