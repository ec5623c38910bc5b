"""What an export leaves behind in its process: nothing of the weights."""

from __future__ import annotations

import gc
import weakref

import torch

from modelgraft_plugins.onnx.exporting import trace


def test_weights_of_a_traced_module_go_with_it(tmp_path):
    """Whatever of the exporter is global and remembers the graph; layers that are copies of another too."""
    layers = [torch.nn.Sequential(torch.nn.Linear(7, 7), torch.nn.ReLU()) for _ in range(3)]
    module = torch.nn.Sequential(torch.nn.Linear(5, 7), *layers)
    left = [weakref.ref(one) for one in module.parameters()]
    sizes = ({0: torch.export.Dim.DYNAMIC},)
    trace(module, (torch.zeros(2, 5),), tmp_path / "graph.onnx", sizes=sizes, inputs=["x"], outputs=["y"], repeats=True)
    del module, layers
    gc.collect()
    assert [one() for one in left] == [None] * 8
