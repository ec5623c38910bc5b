"""Files tuned for this machine: they give the numbers of the plain ones, in every precision."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace

import numpy
import onnx
import pytest
import torch

from modelgraft.engine.modules.signatures import Signature
from modelgraft.kernel.words.ports import port
from modelgraft.plugin import Parity
from modelgraft_plugins.onnx import tuning
from modelgraft_plugins.onnx.exporting import export, flat
from modelgraft_plugins.onnx.precision import bring
from modelgraft_plugins.onnx.sessions import open_session
from modelgraft_plugins.onnx.tuning import TUNED_FROM_BYTES, _made_up, tune

pytestmark = [
    pytest.mark.slow,  # it exports
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

WIDTH = 384  # its square has more bytes than stay in the graph, in 4 bits too
SIGNATURE = Signature((("x", port(f"float[batch tokens {WIDTH}]")),), (("y", port(f"float[batch tokens {WIDTH}]")),))


@pytest.fixture(autouse=True)
def real_processes(monkeypatch):
    """What is tuned is tried as users have it tried: in new interpreters, see pace.py."""
    monkeypatch.setattr(tuning, "subprocess", subprocess)


@pytest.mark.parametrize("precision", ["float32", "int8", "w8", "w4"])
def test_a_tuned_file_gives_the_numbers_of_the_plain_one(precision, tmp_path):
    """Weights in blocks too, whose operator does not save what it packed."""
    torch.manual_seed(0)
    layers = [layer for _ in range(3) for layer in (torch.nn.Linear(WIDTH, WIDTH), torch.nn.Tanh())]
    export(flat(torch.nn.Sequential(*layers), ports=["x"], wired=["x"], outputs=["y"]), SIGNATURE, tmp_path / "model.onnx")
    bring([tmp_path / "model.onnx"], precision, lambda: Parity(0.0, 0.0, 1.0, ()))
    (tmp_path / "tuned").mkdir()
    assert tune(tmp_path / "model.onnx", tmp_path / "tuned" / "model.onnx") == ""
    assert (tmp_path / "tuned" / "model.onnx.data").stat().st_size > TUNED_FROM_BYTES
    feed = {"x": torch.randn(2, 5, WIDTH).numpy()}
    plain = open_session(tmp_path / "model.onnx", device="cpu").run(None, feed)[0]
    tuned = open_session(tmp_path / "tuned" / "model.onnx", device="cpu", optimised=True).run(None, feed)[0]
    assert numpy.abs(plain - tuned).max() <= 1e-5


def test_a_norm_after_a_sum_stays_two_operators(tmp_path):
    """The one that onnxruntime would put in their place takes six times as long on a CPU."""

    class Summed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = torch.nn.LayerNorm(WIDTH)

        def forward(self, x):
            return self.norm(x + x.tanh())

    export(flat(Summed(), ports=["x"], wired=["x"], outputs=["y"]), SIGNATURE, tmp_path / "model.onnx")
    (tmp_path / "tuned").mkdir()
    assert tune(tmp_path / "model.onnx", tmp_path / "tuned" / "model.onnx") == ""
    operators = [node.op_type for node in onnx.load(tmp_path / "tuned" / "model.onnx").graph.node]
    assert operators == ["Tanh", "Add", "LayerNormalization"]


@pytest.mark.parametrize("axes", [["batch"], ["batch", "read"]])
def test_a_decoder_is_tried_with_the_last_position_of_each_row(axes):
    """Of one that reads several as well: with any other rank the graph refuses what is made up, and nothing is kept as tuned."""
    entries = [SimpleNamespace(name="last", type="tensor(int64)", shape=axes)]
    (made,) = _made_up(SimpleNamespace(get_inputs=lambda: entries), 8).values()
    assert (made == 7).all()
    assert made.ndim == len(axes)
    assert len(made) == 2
