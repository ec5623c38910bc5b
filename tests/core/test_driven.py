"""Driven components: a loop in plain Python around the parts of a module, in the hands of the torch backend."""

from __future__ import annotations

import sys

import pytest
import torch

import modelgraft as mg
from modelgraft import Config, component
from modelgraft.engine.backend import LoadContext
from modelgraft.kernel.words.errors import Cancelled, PluginError
from modelgraft.plugin import Driven, Loop, Ports
from modelgraft.testing import conform, node_of
from modelgraft_plugins import torch as torch_backend
from modelgraft_plugins.torch.backend import TorchBackend
from support.running import graph_of, registry_of
from support.settling import SettleConfig, settled

GRAPH = """\
modelgraft: 1
inputs: {state: "float[batch 6]", push: "float[batch 6]"}
nodes:
  settle: {use: toy/settle, with: {rounds: 4}, in: {state: inputs.state, push: inputs.push}}
outputs: {state: settle.state, value: settle.value}
"""


def draw(*shape, seed=3):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def loaded(subject=SettleConfig):
    node = node_of(subject)
    return TorchBackend().load(LoadContext(node, "cpu", "float32", None, 0, offline=True, registry=registry_of(), init="random"), {})


def test_the_loop_calls_the_parts_by_name():
    """In the order of their inputs; of several outputs it gets a mapping. What the module says of itself reaches it."""
    part = loaded()
    state, push = draw(5, 6), draw(5, 6, seed=4)
    found = part.call(state, push)
    for name, expected in zip(("state", "value"), settled(part.state, state, push, 3), strict=True):
        assert (found[name] - expected).abs().max() <= 1e-5, name
    assert part.loop.prepared == "node"


def test_a_driven_component_keeps_its_declaration():
    """As any other: loaded and saved, counted, alone and in a batch."""
    conform(SettleConfig)


def test_a_run_is_watched_and_stopped_round_by_round(tmp_path):
    """Events come from inside the loop, and a run that is cancelled ends at the next round."""
    registry = registry_of(SettleConfig, register_backends=torch_backend.register_backends)
    with mg.open(graph_of(registry, tmp_path, GRAPH), init="random", cache_bytes=0) as pipeline:
        events = list(pipeline.stream(state=draw(1, 6), push=draw(1, 6)))
        assert [event.facts["done"] for event in events if event.kind == "progress" and event.facts["label"] == "step"] == [1, 2, 3, 4]

    def stop_at_once():
        for event in pipeline.stream(state=draw(1, 6), push=draw(1, 6)):
            if event.kind == "progress":
                pipeline.cancel()

    endless = GRAPH.replace("rounds: 4", "rounds: 1000000000")
    with mg.open(graph_of(registry, tmp_path, endless), init="random") as pipeline, pytest.raises(Cancelled):
        stop_at_once()


def test_a_module_that_holds_no_such_part_is_named():
    """With the parts that it holds."""

    @component("toy/lacking", kind="generator", module="support.settling:Settling", loop="support.settling:Settle",
               parts={"pull": Ports.of({"state": "float[batch 6]"}, {"force": "float[batch 6]"})},
               inputs={"state": "float[batch 6]"}, outputs={"y": "float[batch 6]"})  # fmt: skip
    class Lacking(Config):
        """Lack a part."""

        width: int = 6

    with pytest.raises(PluginError, match="Settling holds no part 'pull'; it holds field, reading: set it under the declared name"):
        loaded(Lacking)


class Plain(torch.nn.Module):
    """A module that was made for no loop."""

    def __init__(self, config):
        super().__init__()


class Odd:
    """What is no loop."""

    def __init__(self, config, facts):
        pass


class Bare(Driven):
    """Without parts."""

    def __init__(self, config):
        super().__init__()


class Idle(Loop):
    """Gives back what it gets."""

    def run(self, values, parts, *, wanted):
        return values[0]


WRONG = [
    ("Plain", "Idle", "gave .*, wanted a modelgraft.plugin.Driven, because it has a loop"),
    ("Bare", "Odd", "wanted a modelgraft.plugin.Loop"),
]


@pytest.mark.parametrize(("module", "loop", "message"), WRONG)
def test_what_is_no_module_or_loop_of_its_kind_is_refused(module, loop, message):
    """By the name that the declaration has for it."""
    here = sys.modules[Plain.__module__] = sys.modules.get(Plain.__module__) or type(sys)(Plain.__module__)
    for each in (Plain, Odd, Bare, Idle):
        setattr(here, each.__name__, each)

    @component("toy/wrong", kind="generator", module=f"{Plain.__module__}:{module}", loop=f"{Plain.__module__}:{loop}",
               inputs={"x": "float[batch 3]"}, outputs={"y": "float[batch 3]"})  # fmt: skip
    class Wrong(Config):
        """Be wrong."""

    with pytest.raises(PluginError, match=message):
        loaded(Wrong)


def test_parts_without_a_loop_are_refused_at_the_declaration():
    """And so is a loop around what is no module."""
    message = "component 'toy/odd': loop= goes around the parts of a module, and parts= are what loop= calls"
    ports = {"inputs": {"x": "float[batch 3]"}, "outputs": {"y": "float[batch 3]"}}
    with pytest.raises(PluginError, match=message):
        component("toy/odd", kind="generator", module="a:B", parts={"field": Ports()}, **ports)(type("Odd", (Config,), {"__doc__": "Odd."}))
