"""How far the writing of an export is, told to whoever listens."""

from __future__ import annotations

import numpy
import onnx_ir

from modelgraft.sources.progress import heard_by
from modelgraft_plugins.onnx.reducing import save


def test_the_layers_of_a_model_are_told_as_they_are_written(tmp_path):
    """Each once, whatever lies between them; tensors of no layer say nothing, and parts of one are no layers."""
    layers = ["layers.0.up.weight", "layers.0.down.weight", "layers.1.weight", "layers.2.up.weight.8x32.64.packed"]
    names = ["embed.weight", *layers, "norm.weight", "head.weight.8x32.64.packed"]
    held = [onnx_ir.Value(name=name, const_value=onnx_ir.tensor(numpy.ones((20, 20), numpy.float32))) for name in names]
    model = onnx_ir.Model(onnx_ir.Graph([], [], nodes=[], initializers=held, opset_imports={"": 18}), ir_version=10)
    told = []
    with heard_by(lambda *words: told.append(words)):
        save(model, tmp_path / "model.onnx")
    assert told == [(layer, 3, "writing for onnx, layer") for layer in (1, 2, 3)]
    assert (tmp_path / "model.onnx.data").stat().st_size >= len(names) * 1600
