"""Matrices that are written as the checkpoint stores them: the same numbers, and the matrices themselves back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from modelgraft_plugins.graph_writing import GraphWriting
from modelgraft_plugins.onnx.as_stored import store_as_they_lie, turn_back
from modelgraft_plugins.onnx.reducing import save
from modelgraft_plugins.onnx.runtime import open_on_host, options_of
from modelgraft_plugins.onnx.widening import PAGE, WIDER, widen

WIDTH = 8


Model = Any  # of onnx_ir


def written(dtype: torch.dtype = torch.float32) -> Model:
    """Two layers side by side that a third one brings back from a width of whole pages."""
    draw = torch.Generator().manual_seed(0)
    shapes = {"up.weight": (PAGE // 2, WIDTH), "gate.weight": (PAGE // 2, WIDTH), "down.weight": (WIDTH, PAGE), "down.bias": (WIDTH,)}
    graph = GraphWriting({name: torch.randn(shape, generator=draw).to(dtype) for name, shape in shapes.items()}, torch.float32)
    x = graph.takes("x", torch.float32, ["batch", 3, WIDTH])
    y = graph.linear(graph.node("Relu", [graph.linear(x, "up", "gate")]), "down")
    return graph.model({"y": (graph.widened(y), ["batch", 3, WIDTH])})


def operators(model: Model) -> list[str]:
    """Those that multiply."""
    return [node.op_type for node in model.graph if "MatMul" in node.op_type]


def given(model: Model, path: Path) -> np.ndarray:
    """What onnxruntime gives for two records."""
    save(model, path)
    x = np.random.default_rng(1).standard_normal((2, 3, WIDTH), np.float32)
    found: np.ndarray = open_on_host(path, options_of(count=1)).run(None, {"x": x})[0]
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_of_stored_matrices_give_the_bits_of_turned_ones(tmp_path: Path, dtype: torch.dtype) -> None:
    turned, stored = written(dtype), written(dtype)
    assert (widen(turned.graph), widen(stored.graph)) == (1, 1)
    assert store_as_they_lie(stored.graph) == 2
    assert (operators(turned), operators(stored)) == (["MatMul"] * 2, ["FusedMatMul"] * 2)
    shapes = [tuple(value.shape) for name, value in stored.graph.initializers.items() if "stored" in name]
    assert sorted(shapes) == [(WIDTH, PAGE + WIDER), (PAGE + WIDER, WIDTH)]
    assert np.array_equal(given(turned, tmp_path / "turned.onnx"), given(stored, tmp_path / "stored.onnx"))


def test_a_graph_of_stored_matrices_is_read_back_as_one_of_turned_ones(tmp_path: Path) -> None:
    turned, stored = written(), written()
    store_as_they_lie(stored.graph)
    save(stored, tmp_path / "stored.onnx")
    read: Model = ir.load(tmp_path / "stored.onnx")
    assert turn_back(read.graph) == 2
    matrices = [[node.inputs[1].const_value.numpy() for node in model.graph if node.op_type == "MatMul"] for model in (turned, read)]
    assert all(np.array_equal(one, other) for one, other in zip(*matrices, strict=True))
    assert len(read.graph.initializers) == len(turned.graph.initializers)


def test_matrices_of_which_nothing_is_noted_stay_as_they_are() -> None:
    model = written()
    for value in model.graph.initializers.values():
        value.meta.clear()
    assert store_as_they_lie(model.graph) == 0
    assert operators(model) == ["MatMul"] * 2
