"""The table of operators that exports of one process share in the tests is the one that each would read."""

from __future__ import annotations

import pytest
from torch.onnx._internal.exporter._registration import ONNXRegistry

from modelgraft_plugins.onnx.keys import OPSET
from support.pace import keep_operators


@pytest.mark.slow  # it reads all operators of onnxscript
def test_a_kept_table_is_the_one_that_is_read_anew_and_nobody_changes_that_of_another():
    keep_operators()
    first, anew = (read(opset_version=OPSET) for read in (ONNXRegistry.from_torchlib, ONNXRegistry.from_torchlib.read))
    assert first.opset_version == anew.opset_version == OPSET
    assert {target: [entry.onnx_function for entry in entries] for target, entries in first.functions.items()} == {
        target: [entry.onnx_function for entry in entries] for target, entries in anew.functions.items()
    }
    first.functions.clear()
    assert ONNXRegistry.from_torchlib(opset_version=OPSET).functions.keys() == anew.functions.keys()
