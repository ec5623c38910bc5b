"""The torch backend: what it builds, fills, refuses and calls."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest
import torch

from modelgraft import Config, InputError, PluginError, SourceError, component
from modelgraft.engine.backend import LoadContext
from modelgraft.engine.modules.building import DTYPES, count_parameters, parameters_without_memory
from modelgraft.engine.modules.calling import in_torch, resolve_device
from modelgraft.engine.run import NodeRuntime
from modelgraft.installed.discovery import discover
from modelgraft.kernel.words.errors import Cancelled, Place
from modelgraft.kernel.words.graph import Node
from modelgraft_plugins.torch.backend import TorchBackend


class Affine(torch.nn.Module):
    """y = (x W^T + b) * gain, with a buffer that no checkpoint holds."""

    def __init__(self, config):
        super().__init__()
        self.linear = torch.nn.Linear(config.width, config.width + 1)
        self.register_buffer("gain", torch.tensor(3.0), persistent=False)

    def forward(self, x):
        """Map."""
        return self.linear(x) * self.gain


class Renamed(Affine):
    """The same, from a checkpoint with other names."""

    def from_checkpoint(self, weights):
        """Translate the names."""
        return {f"linear.{name}": tensor for name, tensor in weights.state().items()}


class Boom(torch.nn.Module):
    """Cannot be built."""

    def __init__(self, config):
        raise ValueError("no such width")


def toy(name):
    """A node whose module is the class of that name in this file."""
    home = ModuleType("toy_modules")
    home.__dict__.update(Affine=Affine, Renamed=Renamed, Boom=Boom)
    __import__("sys").modules["toy_modules"] = home

    @component(
        "toy/affine", kind="projector", module=f"toy_modules:{name}", inputs={"x": "float[batch width]"}, outputs={"y": "float[batch m]"}
    )
    class Toy(Config):
        """Map."""

        width: int = 5

    return Node(
        name="map", component=Toy.__component__, config=Toy(), source=None, in_ports={}, out_ports={}, wired={}, lists=frozenset(),
        frozen=True, when=None, lazy=False, share=None, adapters=(), runtime={}, origins={}, place=Place("toy.yaml", 3),
    )  # fmt: skip


def weights(**state):
    return SimpleNamespace(
        begin=lambda: None, state=lambda: state, view=SimpleNamespace(text="./folder#part", states=lambda _component: None)
    )


def context(node, given=None, **changes):
    plain = LoadContext(node=node, device="cpu", dtype="float32", weights=given, seed=0, offline=True, registry=None)
    return replace(plain, **changes)


STATE = {"linear.weight": torch.randn(6, 5), "linear.bias": torch.randn(6)}


def test_a_module_gets_the_tensors_of_its_checkpoint_without_a_copy():
    """The parameters are the checkpoint's own memory, buffers are real, and the result is the formula's."""
    loaded = TorchBackend().load(context(toy("Affine"), weights(**STATE)), {})
    assert loaded.state.linear.weight.data_ptr() == STATE["linear.weight"].data_ptr()
    x = torch.randn(2, 5)
    assert torch.allclose(loaded.call(x), (x @ STATE["linear.weight"].T + STATE["linear.bias"]) * 3)
    assert not loaded.call(x).requires_grad
    assert not loaded.state.training


def test_names_are_translated_by_the_module():
    """`from_checkpoint` decides what the tensors are called inside."""
    loaded = TorchBackend().load(context(toy("Renamed"), weights(weight=STATE["linear.weight"], bias=STATE["linear.bias"])), {})
    assert torch.equal(loaded.state.linear.bias, STATE["linear.bias"])


def test_tensors_that_do_not_fit_are_named():
    """Missing, left over and of another shape, all in one message with the node's place."""
    wrong = {"linear.weight": torch.randn(6, 4), "linear.scale": torch.randn(6)}
    message = (
        r"toy\.yaml:3  weights-do-not-fit  the tensors of \./folder#part do not fit map \(toy/affine\): 1 missing: linear\.bias; "
        r"1 left over: linear\.scale; 1 of another shape: linear\.weight is \[6, 4\], wanted \[6, 5\]"
    )
    with pytest.raises(SourceError, match=message):
        TorchBackend().load(context(toy("Affine"), weights(**wrong)), {})


def test_a_module_without_weights_starts_from_the_seed_and_says_so():
    """The warning counts the parameters; with the same seed the numbers are the same."""
    one, two, other = (TorchBackend().load(context(toy("Affine"), seed=seed), {}) for seed in (1, 1, 2))
    assert torch.equal(one.state.linear.weight, two.state.linear.weight)
    assert not torch.equal(one.state.linear.weight, other.state.linear.weight)
    assert one.warnings == ("map: 36 parameters start from random numbers (seed 1)",)


def test_what_is_loaded_in_a_callers_inference_mode_serves_everywhere():
    """Its parameters are no inference tensors, which could be called in that mode alone."""
    with torch.inference_mode():
        part = TorchBackend().load(context(toy("Affine")), {})
    assert not any(parameter.is_inference() for parameter in part.state.parameters())


def test_random_weights_leave_the_callers_generator_alone():
    """Loading does not move torch's global state."""
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    TorchBackend().load(context(toy("Affine")), {})
    assert torch.equal(torch.rand(3), expected)


def test_a_shared_node_uses_the_same_memory():
    """Two nodes, one set of weights."""
    host = TorchBackend().load(context(toy("Affine"), weights(**STATE)), {})
    guest = TorchBackend().load(context(replace(toy("Affine"), name="again", share="map")), {"map": host})
    assert guest.state.linear.weight.data_ptr() == host.state.linear.weight.data_ptr()
    assert guest.state is not host.state


def test_another_dtype_casts_the_module_and_its_inputs():
    """float64 weights take float32 inputs, and the other way round: the run's dtype is what was asked for."""
    plain = TorchBackend().load(context(toy("Affine"), weights(**STATE)), {})
    assert plain.call(torch.randn(2, 5).double()).dtype is torch.float32
    loaded = TorchBackend().load(context(toy("Affine"), weights(**STATE), dtype="float64"), {})
    assert loaded.call(torch.randn(2, 5)).dtype is torch.float64
    with pytest.raises(InputError, match="dtype 'float31' is not known to the torch backend; it knows bfloat16, float16"):
        TorchBackend().load(context(toy("Affine"), weights(**STATE), dtype="float31"), {})


@pytest.mark.parametrize("device", ["cuda:7", "gpu"])
def test_a_device_that_a_graph_names_is_there_or_told_with_the_node(device):
    """`runtime: {device: ...}` is looked at when the node is loaded, by which time flags have had their say."""
    with pytest.raises(InputError, match=f"^map: device '{device}' is not here; there is: cpu"):
        TorchBackend().load(context(toy("Affine"), weights(**STATE), device=device), {})


@pytest.mark.parametrize(("device", "waits"), [("cpu", True), ("meta", False)])
def test_what_comes_from_a_device_is_waited_for_on_the_host(device, waits):
    """torch copies to the host in the background when it is allowed to, and a module would read what is not there yet."""

    class Watched(torch.Tensor):
        def to(self, *args, non_blocking=False, **options):
            seen.append(non_blocking)
            return super().to(*args, non_blocking=non_blocking, **options)

    seen: list[bool] = []
    call = in_torch(lambda x: x, replace(context(toy("Affine")), device=device))
    call(torch.zeros(2).as_subclass(Watched))
    assert seen == [not waits]


def test_a_module_that_cannot_be_built_names_its_plugin():
    """What the plugin raised is in the message."""
    with pytest.raises(PluginError, match="toy_modules:Boom could not be built for node 'map': ValueError: no such width"):
        TorchBackend().load(context(toy("Boom"), weights()), {})
    with pytest.raises(PluginError, match=r"toy_modules:Gone .* cannot be imported"):
        TorchBackend().load(context(toy("Gone"), weights()), {})


def test_counting_builds_nothing_in_memory():
    """The meta device counts what the formula of a linear layer gives."""
    assert count_parameters(toy("Affine")) == 5 * 6 + 6


def test_only_parameters_go_to_meta():
    """Buffers must stay real, and afterwards building is as before."""
    with parameters_without_memory():
        module = torch.nn.BatchNorm1d(3)
    assert module.weight.is_meta
    assert not module.running_mean.is_meta
    assert not torch.nn.Linear(2, 2).weight.is_meta


def test_a_device_that_is_not_there_is_refused():
    """The message lists what is."""
    assert resolve_device("cpu") == "cpu"
    with pytest.raises(InputError, match="device 'cuda:99' is not here; there is: cpu"):
        resolve_device("cuda:99")


def test_a_torch_without_cuda_is_named(monkeypatch):
    """A GPU that is there is of no use to it; where torch has CUDA, only the devices are told."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(InputError, match=r"device 'cuda' is not here; there is: cpu; torch \S+ is built without CUDA$"):
        resolve_device("cuda")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(InputError, match=r"device 'cuda' is not here; there is: cpu$"):
        resolve_device("cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == resolve_device("cuda") == "cuda:0"


def test_seeds_differ_between_nodes_and_follow_the_run():
    """The same node and run seed give the same number."""
    seeds = [NodeRuntime(name, seed=seed).node_seed() for name in ("a", "b") for seed in (0, 1)]
    assert len(set(seeds)) == 4
    assert NodeRuntime("a", seed=1).node_seed() == seeds[1]


def test_code_that_asks_hears_of_cancellation():
    """`check` raises once the run was stopped."""
    runtime = NodeRuntime("a")
    runtime.check()
    runtime.cancelled.set()
    with pytest.raises(Cancelled, match="a was stopped"):
        runtime.check()


def test_what_the_plans_are_told_is_what_the_backend_has():
    """The plugin declares the dtypes without torch, and the backend runs in them."""
    assert set(discover().backends["torch"].precisions) == set(DTYPES)


def test_nothing_is_drawn_for_modules_without_memory_and_all_as_ever_after():
    """One block may lie in another; tensors with memory are drawn within too."""
    torch.manual_seed(0)
    expected = torch.nn.Linear(3, 5).weight.detach().clone()
    with parameters_without_memory():
        with parameters_without_memory():
            assert torch.nn.Embedding(7, 3).weight.is_meta
        assert torch.nn.Linear(3, 5).weight.is_meta
        torch.manual_seed(0)
        drawn = torch.empty(4).normal_()
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.empty(4).normal_())
    torch.manual_seed(0)
    assert torch.equal(torch.nn.Linear(3, 5).weight, expected)
