"""Which matrices int8 keeps dynamic: as many as the parity gate lets pass."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

import onnx
import pytest
import torch

from modelgraft.cli import tables
from modelgraft.engine.modules.signatures import Signature
from modelgraft.kernel.words.ports import port
from modelgraft.plugin import ExportError, Parity, parity_of
from modelgraft.records.arrays import as_tensor
from modelgraft_plugins.onnx.calling import Exported
from modelgraft_plugins.onnx.exporting import export, flat, open_fresh
from modelgraft_plugins.onnx.keys import dynamic_bits
from modelgraft_plugins.onnx.precision import TOLERANCES, bring

pytestmark = [
    pytest.mark.slow,  # it exports
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

SIGNATURE = Signature((("x", port("float[batch tokens 64]")),), (("y", port("float[batch tokens 64]")),))
DYNAMIC = f"{dynamic_bits()} bits dynamic"  # what the processor of this machine multiplies without overflow
NARROWING = f"{DYNAMIC}, 1 of 2 matrices in blocks of 32"
BLOCKS = "8 bits in blocks of 32"


class Gated(torch.nn.Module):
    """Two matrices, 64 -> 160 -> 64; one of the numbers between them, or before them, is a thousand times the others."""

    def __init__(self, *, spikes):
        super().__init__()
        self.up, self.down, self.spikes = torch.nn.Linear(64, 160), torch.nn.Linear(160, 64), spikes
        with torch.no_grad():  # what reads the spike does not use its block, so all that it does is to widen a scale
            wide = {"between": self.down, "before": self.up}.get(spikes)
            if wide is not None:
                wide.weight[:, :32] = 0.0

    def forward(self, x):
        """Widen, narrow."""
        x = x * torch.tensor([1e3 if self.spikes == "before" else 1.0, *[1.0] * 63])
        inner = self.up(x).tanh() * torch.tensor([1e3 if self.spikes == "between" else 1.0, *[1.0] * 159])
        return self.down(inner)


@pytest.fixture
def graph(tmp_path):
    """Where `exported` writes."""
    return tmp_path / "model.onnx"


def exported(module, path):
    """Write the graph of a module, and give the module as the gate calls it."""
    whole = flat(module, ports=["x"], wired=["x"], outputs=["y"])
    export(whole, SIGNATURE, path)
    return whole


def gate(whole, path):
    cases = [(torch.randn(2, 7, 64, generator=torch.Generator().manual_seed(seed)),) for seed in range(2)]
    return lambda: parity_of(whole, Exported(open_fresh(path), device="cpu"), cases, tolerance=TOLERANCES["int8"][0])


@pytest.mark.parametrize(("spikes", "weights"), [("none", DYNAMIC), ("between", NARROWING), ("before", BLOCKS)])
def test_matrices_that_read_outliers_are_held_in_blocks(spikes, weights, graph):
    """None when there are no outliers; the narrowing one when it reads them; all when another does; and that is said."""
    torch.manual_seed(0)
    whole = exported(Gated(spikes=spikes), graph)
    reduced = bring([graph], "int8", gate(whole, graph))
    assert reduced.weights == weights
    assert reduced.parity.relative <= TOLERANCES["int8"][0]
    assert bool(reduced.warnings) == (spikes != "none")
    for warning in reduced.warnings:
        assert warning.startswith(f"int8 is {weights}: {DYNAMIC} would be ")
        assert warning.endswith(" from torch (tolerance 0.25)")
    x = torch.randn(3, 5, 64)
    with torch.no_grad():
        expected = whole(x)[0]
    assert (as_tensor(Exported(open_fresh(graph), device="cpu")(x)[0]) - expected).abs().max() <= 0.1 * expected.abs().max()


def far(graph, seen):
    """A gate that lets nothing pass, and notes which operators there are."""

    def prove():
        operators = Counter(node.op_type for node in onnx.load(graph, load_external_data=False).graph.node)
        seen.append((operators["MatMulInteger"], operators["MatMulNBits"], operators["MatMul"]))
        return Parity(9.0, 0.5 + len(seen) / 100, 0.25, ())

    return prove


def test_every_way_is_tried_before_an_export_is_refused(graph):
    """Dynamic, the narrowing matrix in blocks, both in blocks; the message is that of the last; the float32 graph is gone."""
    exported(Gated(spikes="none"), graph)
    seen = []
    with pytest.raises(
        ExportError, match=r"the export differs from torch: max difference 9\.0e\+00, relative 5\.3e-01 \(tolerance 0\.25\)"
    ):
        bring([graph], "int8", far(graph, seen))
    assert seen == [(2, 0, 0), (1, 1, 0), (0, 2, 0)]
    assert sorted(path.name for path in graph.parent.iterdir()) == ["model.onnx", "model.onnx.data"]


@pytest.mark.parametrize("precision", ["w8", "w4", "float32"])
def test_other_precisions_have_one_way(precision, graph):
    """Nothing else is tried in their place."""
    exported(Gated(spikes="none"), graph)
    seen = []
    with pytest.raises(ExportError, match=r"relative 5\.1e-01"):
        bring([graph], precision, far(graph, seen))
    assert len(seen) == 1


def test_a_graph_without_matrices_stays_as_it_was(graph):
    """There is nothing to reduce, and no way but one."""
    whole = exported(torch.nn.Tanh(), graph)
    assert bring([graph], "int8", gate(whole, graph)).weights == ""


def test_the_gate_tells_three_figures_of_logits():
    """The largest difference, that of the whole, and how often the likeliest token is the same; the worst of all outputs."""
    theirs = [torch.tensor([[1.0, 4.0, 2.0], [5.0, 1.0, 0.0]]), torch.tensor([[0.0, 2.0, 1.0]])]
    mine = [torch.tensor([[1.0, 4.0, 4.5], [5.0, 1.0, 0.0]]), torch.tensor([[0.0, 2.0, 1.5]])]
    found = parity_of(lambda: theirs, lambda: mine, [()], tolerance=1e-4, writes=True)
    assert (found.absolute, found.relative) == (2.5, 0.5)
    assert found.overall == pytest.approx(2.5 / 47**0.5)  # 47 = 1 + 16 + 4 + 25 + 1
    assert found.same == pytest.approx(2 / 3)
    assert parity_of(lambda: theirs, lambda: mine, [()], tolerance=1e-4).same is None


def test_a_plan_tells_how_far_an_export_is_and_how_its_weights_are_held():
    """In one line; what does not apply is left out."""
    parity = Parity(7.6, 0.231, 0.25, (), overall=0.18, same=0.8)
    said = "at most 2.3e-01 of the largest value from torch, 1.8e-01 on the whole"
    assert tables._told({**asdict(parity), "weights": NARROWING}) == f"{said}; the likeliest token is the same in 80%; {NARROWING}"
    assert tables._told({**asdict(parity), "same": None, "weights": ""}) == said
