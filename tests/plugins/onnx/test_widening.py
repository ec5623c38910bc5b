"""Inner widths of whole memory pages: made wider where they are free to choose, with the same numbers."""

from __future__ import annotations

import onnx
import pytest
import torch
from torch.nn import functional

from modelgraft.engine.modules.signatures import Signature
from modelgraft.kernel.words.ports import port
from modelgraft.records.arrays import as_tensor
from modelgraft_plugins.onnx.calling import Exported
from modelgraft_plugins.onnx.exporting import export, flat, open_fresh
from modelgraft_plugins.onnx.widening import PAGE, WIDER

pytestmark = [
    pytest.mark.slow,  # it exports
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]


class Plain(torch.nn.Module):
    """Widen, bend, narrow, as the layers of a transformer; their biases of zeros are one tensor in a graph."""

    def __init__(self, inner):
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.ModuleList([torch.nn.Linear(5, inner), torch.nn.Linear(inner, 5)]) for _ in range(2))
        for up, _ in self.layers:
            torch.nn.init.zeros_(up.bias)

    def forward(self, x):
        """Two layers with what they add to."""
        for up, down in self.layers:
            x = x + down(functional.gelu(up(x)))
        return x


class Gated(torch.nn.Module):
    """The product of two widenings."""

    def __init__(self, inner):
        super().__init__()
        self.gate, self.up, self.down = torch.nn.Linear(5, inner), torch.nn.Linear(5, inner, bias=False), torch.nn.Linear(inner, 5)

    def forward(self, x):
        """As in LLaMA."""
        return self.down(functional.silu(self.gate(x)) * self.up(x) * torch.tensor([[[0.5]]]))


class Summed(Gated):
    """The inner numbers are read twice: their sum would see the width."""

    def forward(self, x):
        """Scale by the mean."""
        inner = self.up(x).relu()
        return self.down(inner) * inner.mean(-1, keepdim=True)


class Normed(Gated):
    """What stands between does not take numbers one by one."""

    def forward(self, x):
        """Softmax over the width."""
        return self.down(self.up(x).softmax(-1))


class Shifted(Gated):
    """A value that comes from outside, not from a matrix."""

    def forward(self, x):
        """Use the sum of what is given."""
        return self.down(self.up(x) + x.sum(-1, keepdim=True))


WIDENED = [(Plain, PAGE, [PAGE + WIDER] * 2), (Gated, 2 * PAGE, [2 * PAGE + WIDER])]
KEPT = [(Plain, PAGE + 8, [PAGE + 8] * 2), (Summed, PAGE, [PAGE]), (Normed, PAGE, [PAGE]), (Shifted, PAGE, [PAGE])]


@pytest.mark.parametrize(("kind", "inner", "expected"), [*WIDENED, *KEPT])
def test_free_widths_of_whole_pages_become_wider(kind, inner, expected, tmp_path):
    """Where only numbers one by one stand between two matrices and nobody else looks; the numbers are torch's, on any size."""
    torch.manual_seed(0)
    module = flat(kind(inner), ports=["x"], wired=["x"], outputs=["y"])
    signature = Signature((("x", port("float[batch tokens 5]")),), (("y", port("float[batch tokens 5]")),))
    export(module, signature, tmp_path / "model.onnx")
    graph = onnx.load(tmp_path / "model.onnx").graph
    onnx.checker.check_model(onnx.load(tmp_path / "model.onnx"), full_check=True)
    shapes = {entry.name: list(entry.dims) for entry in graph.initializer}
    read = [shapes[node.input[1]] for node in graph.node if node.op_type in {"MatMul", "Gemm"}]
    assert [rows for rows, columns in read if columns == 5] == expected
    x = torch.randn(3, 7, 5)
    with torch.no_grad():
        difference = as_tensor(Exported(open_fresh(tmp_path / "model.onnx"), device="cpu")(x)[0]) - module(x)[0]
    assert difference.abs().max() <= 1e-5
