"""Branches that records ask several times, in one session per stretch: what runs once for each ask is never one call with what does not."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

import modelgraft as mg
from modelgraft import Config, component, port
from modelgraft.installed.discovery import assemble
from modelgraft_plugins import onnx as onnx_backend
from modelgraft_plugins import torch as torch_backend
from support.running import Counter, document, function, graph_of

pytestmark = [
    pytest.mark.slow,  # it exports
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]
ROW = "float[batch 3]"
SEVERAL = port(ROW, several="rows")
X = torch.tensor([[2.0, 0.5, -1.0], [0.0, 1.0, 2.0], [1.0, -3.0, 0.25]])  # the first number of each says how often it asks


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    """Exports of these tests alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODELGRAFT_CACHE", str(tmp_path_factory.mktemp("onnx")))
        yield


class Plus(torch.nn.Module):
    """A linear map of one thing, beside another."""

    def __init__(self, config):
        super().__init__()
        self.linear = torch.nn.Linear(3, 3)

    def forward(self, x, y):
        """Map, and add."""
        return self.linear(x) + y


@component("toy/plus", kind="projector", module=f"{__name__}:Plus", exportable=True, inputs={"x": ROW, "y": ROW}, outputs={"z": ROW})
class PlusConfig(Config):
    """Map and add."""


def opened(tmp_path, nodes, outputs, ran, **more):
    def ask(x):
        ran.note("ask")
        return [row + torch.arange(int(row[0]))[:, None] for row in x]

    def mean(x):
        ran.note(tuple(map(len, x)))
        return torch.stack([sum(rows, torch.zeros(3)) / max(1, len(rows)) for rows in x])

    parts = [
        PlusConfig,
        function("toy/ask", {"x": ROW}, {"row": SEVERAL}, ask),
        function("toy/mean", {"x": port(ROW, several="*")}, {"out": ROW}, mean),
    ]
    toy = ModuleType("toy")
    toy.register_components = mg.hookimpl(lambda register: [register(part) for part in parts] and None)
    registry = assemble({"onnx": onnx_backend, "torch": torch_backend, "toy": toy})
    return mg.open(graph_of(registry, tmp_path, document(nodes, inputs={"x": ROW}, outputs=outputs)), init="random", seed=3, **more)


def plus(x, y, **more):
    return {"use": "toy/plus", "in": {"x": x, "y": y}, **more}


# The same branch reads what follows from its own mean: that is of records, though it is there for the same ones.
NODES = {
    "before": plus("inputs.x", "inputs.x"),
    "ask": {"use": "toy/ask", "in": {"x": "inputs.x"}},
    "a": plus("ask", "before"),
    "b": plus("a", "ask"),
    "mean": {"use": "toy/mean", "in": {"x": "b"}},
    "after": plus("mean", "before"),
    "c": plus("b", "after"),
    "d": plus("c", "c"),
    "last": {"use": "toy/mean", "in": {"x": "d"}},
    "end": plus("last", "after"),
}
OUTPUTS = {"end": "end", "d": "d", "a": "a", "mean": "mean"}  # with `a` wanted, the plan of all outputs has no segment a+b


def same(mine, theirs):
    """Compare tensors, and lists of them as deep as they go."""
    if isinstance(mine, torch.Tensor):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
        return
    assert len(mine) == len(theirs)
    for one, other in zip(mine, theirs, strict=True):
        same(one, other)


@pytest.mark.parametrize("asked", [None, ["end"], ["b", "end"], ["c"]])
def test_a_branch_gives_on_onnx_what_it_gives_on_torch(tmp_path, asked):
    """As a batch, alone, and where nobody asks; of any outputs, for which the plan is cut elsewhere."""
    ran = {name: Counter() for name in ("torch", "onnx")}
    found = {}
    for backend, counter in ran.items():
        with opened(tmp_path, NODES, OUTPUTS, counter, backend=backend) as pipeline:
            found[backend] = [pipeline.run(x=given, outputs=asked) for given in (X, X[:1], X[1:2])]
    assert ran["torch"].calls == ran["onnx"].calls
    for mine, theirs in zip(found["onnx"], found["torch"], strict=True):
        assert set(mine) == set(theirs)
        for name in mine:
            same(mine[name], theirs[name])


def test_stretches_of_a_branch_are_one_session_and_no_more(tmp_path):
    with opened(tmp_path, NODES, {"end": "end"}, Counter(), backend="onnx") as pipeline:
        names = {step.node.name for step in pipeline.plan.steps}
        assert {"a+b", "c+d"} <= names
        assert {"before", "after", "end", "ask", "mean", "last"} <= names
        pipeline.run(x=X)
        assert pipeline.run(x=X[1:2])["end"].shape == (1, 3)
