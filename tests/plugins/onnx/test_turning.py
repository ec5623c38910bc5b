"""Matrices that are turned as they are written: the bytes are those of matrices that were turned, widened and joined whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx_ir.tensor_adapters import TorchTensor

from modelgraft_plugins.graph_writing import GraphWriting
from modelgraft_plugins.onnx import turning
from modelgraft_plugins.onnx.constants import turned_in
from modelgraft_plugins.onnx.reducing import save
from modelgraft_plugins.onnx.turning import Turned
from modelgraft_plugins.onnx.widening import PAGE, WIDER, widen

WIDTH = 37  # neither a whole number of rows that are written at once, nor of a cache line

Model = Any  # of onnx_ir


@pytest.fixture(autouse=True)
def few_at_once(monkeypatch):
    """Rows are written by 16, so that each matrix takes several turns, the last of them a short one."""
    monkeypatch.setattr(turning, "AT_ONCE", 1)


def written(stored: torch.dtype, computed: torch.dtype) -> Model:
    """Two layers side by side that a third one brings back from a width of whole pages."""
    draw = torch.Generator().manual_seed(0)
    shapes = {"up.weight": (PAGE - 300, WIDTH), "gate.weight": (300, WIDTH), "down.weight": (WIDTH, PAGE)}
    graph = GraphWriting({name: torch.randn(shape, generator=draw).to(stored) for name, shape in shapes.items()}, computed)
    x = graph.takes("x", computed, ["batch", 3, WIDTH])
    y = graph.linear(graph.node("Relu", [graph.linear(x, "up", "gate")]), "down")
    return graph.model({"y": (graph.node("Identity", [y]), ["batch", 3, WIDTH])})


def matrices(model: Model) -> list[np.ndarray]:
    """The numbers that each product multiplies by."""
    return [node.inputs[1].const_value.numpy() for node in model.graph if node.op_type == "MatMul"]


@pytest.mark.parametrize("computed", [torch.float32, torch.float16])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_matrices_are_written_as_they_are_when_made_whole(tmp_path: Path, stored: torch.dtype, computed: torch.dtype) -> None:
    model = written(stored, computed)
    assert widen(model.graph) == (1 if computed is torch.float32 else 0)
    whole = [matrix.copy() for matrix in matrices(model)]
    save(model, tmp_path / "graph.onnx")
    read = matrices(ir.load(tmp_path / "graph.onnx"))
    assert [matrix.shape for matrix in read] == [matrix.shape for matrix in whole]
    assert all(np.array_equal(one, other) for one, other in zip(read, whole, strict=True))
    if computed is torch.float32:
        assert whole[0].shape == (WIDTH, PAGE + WIDER)


def test_what_a_trace_has_turned_is_written_so_too(tmp_path: Path) -> None:
    weight = torch.randn(50, WIDTH, generator=torch.Generator().manual_seed(1))
    tensor = TorchTensor(weight, name="w")
    held = ir.Value(name="w", shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
    x = ir.Value(name="x", shape=ir.Shape([1, WIDTH]), type=ir.TensorType(ir.DataType.FLOAT))
    graph = ir.Graph([x], [], nodes=[], initializers=[held], opset_imports={"": 23}, name="g")
    node = ir.node("MatMul", [x, turned_in(graph, held, (1, 0))])
    graph.append(node)
    graph.outputs.append(node.outputs[0])
    save(ir.Model(graph, ir_version=10), tmp_path / "graph.onnx")
    assert isinstance(node.inputs[1].const_value, Turned)
    assert np.array_equal(matrices(ir.load(tmp_path / "graph.onnx"))[0], weight.T.numpy())


def test_no_matrix_is_made_whole_while_it_is_written(tmp_path: Path) -> None:
    """Nor brought to another dtype whole."""

    def refuse() -> Any:
        raise AssertionError("made whole")

    stored = torch.randn(20, WIDTH).bfloat16()
    tensor = Turned(ir.LazyTensor(refuse, dtype=ir.DataType.FLOAT, shape=ir.Shape([WIDTH, 20]), name="w"), [stored])
    with (tmp_path / "w").open("wb") as file:
        tensor.tofile(file)
    assert np.array_equal(np.fromfile(tmp_path / "w", np.float32).reshape(WIDTH, 20), stored.float().T.numpy())


def test_other_threads_of_torch_compute_as_before(tmp_path: Path) -> None:
    """And this one too, once a matrix is written."""
    before = torch.get_num_threads()
    save(written(torch.float32, torch.float32), tmp_path / "graph.onnx")
    assert torch.get_num_threads() == before
