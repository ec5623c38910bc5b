"""The façade: from a file to an answer, with real modules on the torch backend."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import pytest
import torch

import modelgraft as mg
from modelgraft.kernel.words.graph import SolvedGraph
from support.running import document, function, graph_of, handing_on, registry_of

WEIGHTY = """
modelgraft: 1
name: weighty
params: {width: 3}
inputs: {x: text}
nodes:
  numbers: {use: toy/numbers, in: {x: inputs.x}}
  eye:     {use: toy/linear, with: {out_features: "${width}"}, in: {x: numbers}}
  twin:    {use: toy/linear, share: eye, in: {x: numbers}}
  tongue:  {use: toy/linear, with: {out_features: 2}, in: {x: eye}}
outputs: {seen: eye, same: twin, said: tongue}
"""


@mg.component(
    "toy/linear",
    kind="projector",
    module="api_modules:Linear",
    inputs={"x": "float[batch in_features]"},
    outputs={"y": "float[batch out_features]"},
)
class LinearConfig(mg.Config):
    """Map vectors."""

    in_features: mg.Dim = None
    out_features: mg.Dim = None

    def parameters(self):
        return self.in_features * self.out_features


class Linear(torch.nn.Module):
    """The module behind it."""

    def __init__(self, config):
        super().__init__()
        self.map = torch.nn.Linear(config.in_features, config.out_features, bias=False)

    def forward(self, x):
        """Map."""
        return self.map(x)


@pytest.fixture
def registry(monkeypatch):
    """The torch backend, a module, and a function before it."""
    module = ModuleType("api_modules")
    module.Linear = Linear
    monkeypatch.setitem(sys.modules, "api_modules", module)
    numbers = function("toy/numbers", {"x": "text"}, {"y": "float[batch 4]"}, lambda x: torch.tensor([[len(t), 1.0, 2.0, 3.0] for t in x]))
    hooks = {"register_backends": mg.hookimpl(lambda register: register("torch", "modelgraft_plugins.torch.backend:TorchBackend"))}
    return registry_of(numbers, LinearConfig, **hooks)


@pytest.fixture
def path(tmp_path):
    """The graph as a file."""
    file = tmp_path / "weighty.yaml"
    file.write_text(WEIGHTY)
    return file


def test_each_hop_gives_its_value(path, registry):
    """load, check and plan give a Graph, a SolvedGraph and a Plan; each takes what the one before gave."""
    graph = mg.load(path, registry=registry, params={"width": 5})
    solved = mg.check(graph)
    plan = mg.plan(graph)
    assert (type(graph), type(solved)) == (mg.Graph, SolvedGraph)
    assert isinstance(plan, mg.Plan)
    assert mg.check(solved) is solved
    assert plan.nodes["eye"].parameters.total == 20
    assert plan.totals.parameters == 20 + 10, "the twin shares the eye's"
    assert [step.node.name for step in mg.plan(solved, wanted=["seen"]).steps] == ["numbers", "eye"]


def test_opening_with_random_weights_runs_and_says_so(path, registry):
    """The same seed gives the same numbers, shared weights the same output, and the result carries the warning."""
    seen = []
    for _ in range(2):
        with mg.open(mg.load(path, registry=registry), init="random", seed=3, device="cpu") as pipeline:
            result = pipeline.run(x=["a", "bc"])
            seen.append(result["seen"])
            assert torch.equal(result["seen"], result["same"])
            assert result["said"].shape == (2, 2)
            assert any("eye: 12 parameters start from random numbers (seed 3)" in text for text in result.warnings)
            linear = pipeline._loader.loaded()["eye"].state
            numbers = torch.tensor([[1.0, 1.0, 2.0, 3.0], [2.0, 1.0, 2.0, 3.0]])
            torch.testing.assert_close(result["seen"], numbers @ linear.map.weight.T)
    assert torch.equal(*seen)


def test_a_part_without_a_source_is_new_and_says_so(path, registry, tmp_path):
    """It starts from the seed, which counts for what is kept on disk too; nothing else need be asked for."""
    graph, seen = mg.load(path, registry=registry), []
    for seed in (3, 3, 4):
        with mg.open(graph, seed=seed, device="cpu", cache_dir=tmp_path / "kept") as pipeline:
            seen.append(pipeline.run(x="a"))
    assert "eye: 12 parameters start from random numbers (seed 3)" in seen[0].warnings
    assert [bool(result.cached) for result in seen] == [False, True, False]
    assert torch.equal(seen[0]["seen"], seen[1]["seen"])
    assert not torch.equal(seen[0]["seen"], seen[2]["seen"])


def test_what_an_output_does_not_need_is_not_loaded(path, registry):
    """Asked for `seen`, the tongue stays on disk; asked for `same`, the eye is loaded because its weights are shared."""
    with mg.open(mg.load(path, registry=registry), init="random", device="cpu") as pipeline:
        assert set(pipeline.run(outputs=["seen"], x="a")) == {"seen"}
        assert set(pipeline._loader.loaded()) == {"numbers", "eye"}
    with mg.open(mg.load(path, registry=registry), init="random", device="cpu") as pipeline:
        pipeline.run(outputs=["same"], x="a")
        assert set(pipeline._loader.loaded()) == {"numbers", "eye", "twin"}


def test_intermediate_tensors_can_be_asked_for_and_are_cached(path, registry):
    """Any port comes back as a torch tensor; a second question about the same text does not run the eye."""
    with mg.open(mg.load(path, registry=registry), init="random", device="cpu") as pipeline:
        first = pipeline.run(outputs=["eye.y"], x="a")
        assert isinstance(first["eye.y"], torch.Tensor)
        second = pipeline.run(outputs=["said"], x="a")
        assert second.cached == {"numbers", "eye"}  # the numbers are read by the eye alone
        assert list(second.timings) == ["tongue"]


def test_a_device_that_is_not_here_is_named(path, registry):
    """With those that are."""
    with pytest.raises(mg.InputError, match=r"device 'tpu' is not here; there is: cpu"):
        mg.open(mg.load(path, registry=registry), device="tpu")


def test_a_backend_that_nobody_offers_is_named(path, registry):
    """With those that somebody does."""
    message = r"no plugin offers the backend 'tourch'; there is: auto, torch\. Did you mean 'torch'\?"
    graph = mg.load(path, registry=registry)
    for ask in (mg.open, mg.plan):
        with pytest.raises(mg.PluginError, match=message):
            ask(graph, backend="tourch")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": "x"}, r"seed is 'x'; wanted: a whole number"),
        ({"init": "radnom"}, r"init is 'radnom'; wanted: 'random', or None"),
        ({"fallback": "pytorch"}, r"fallback is 'pytorch'; wanted: 'torch', or None"),
        ({"timeout_s": 0}, r"timeout_s is 0; wanted: seconds, more than 0, or None"),
        ({"cache_dir": __file__}, r"results cannot be kept in '.*': File exists"),
    ],
)
def test_an_option_that_means_nothing_is_named(path, registry, options, message):
    """Before anything is opened with it: an option that is ignored would be believed."""
    with pytest.raises(mg.InputError, match=message):
        mg.open(mg.load(path, registry=registry), **options)


def test_a_graph_of_functions_is_opened_without_torch(tmp_path):
    """Opening and running light code imports no torch."""
    code = f"""
import sys
sys.path.insert(0, {str(sys.path[0])!r})
sys.path.insert(0, "tests")
import pathlib, modelgraft as mg
from support.running import document, graph_of, handing_on, registry_of
nodes = {{"a": {{"use": "toy/same", "in": {{"x": "inputs.x"}}}}}}
toy = document(nodes, inputs={{"x": "object"}}, outputs={{"out": "a"}})
graph = graph_of(registry_of(handing_on()), pathlib.Path({str(tmp_path)!r}), toy)
with mg.open(graph) as pipeline:
    assert pipeline.run(x=3)["out"] == 3
heavy = {{"torch", "transformers", "onnxruntime"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_thousand_nodes_are_opened_and_run(tmp_path):
    """A chain of a thousand compiles to one function and gives the payload itself."""
    nodes = {f"n{i}": {"use": "toy/same", "in": {"x": f"n{i - 1}" if i else "inputs.x"}} for i in range(1000)}
    graph = graph_of(registry_of(handing_on()), tmp_path, document(nodes, inputs={"x": "object"}, outputs={"out": "n999"}))
    payload = object()
    with mg.open(graph) as pipeline:
        assert [pipeline.run(x=payload)["out"] for _ in range(2)] == [payload, payload]
        assert len(pipeline.run(x=payload).timings) == 1000
