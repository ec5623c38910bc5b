"""The table of operators that exports of one process share in the tests is the one that each would read."""

from __future__ import annotations

import pytest
from torch.onnx._internal.exporter._registration import ONNXRegistry

from modelgraft_plugins.onnx.keys import OPSET
from support.pace import Kept, keep_operators


@pytest.mark.slow  # it reads all operators of onnxscript
def test_a_kept_table_is_the_one_that_is_read_anew_and_nobody_changes_that_of_another():
    """It holds the operators of what was imported when it was first read: here it is read now, as a process that exports alone would."""
    keep_operators()
    read = ONNXRegistry.from_torchlib.read
    kept = Kept(read)
    first, anew = (reader(opset_version=OPSET) for reader in (kept, read))
    assert first.opset_version == anew.opset_version == OPSET
    assert {target: [entry.onnx_function for entry in entries] for target, entries in first.functions.items()} == {
        target: [entry.onnx_function for entry in entries] for target, entries in anew.functions.items()
    }
    first.functions.clear()
    assert kept(opset_version=OPSET).functions.keys() == anew.functions.keys()
