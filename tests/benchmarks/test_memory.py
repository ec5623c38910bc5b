"""What the table of memory opens, and what a figure of it means."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from benchmarks import memory
from benchmarks.memory import GGUF, Opening


def test_every_kind_of_file_is_opened_on_both_backends() -> None:
    """In float32; the other precisions of the first kind and of the published file."""
    found = {"safetensors": ("a", 10), "pickle": ("b", 10), GGUF: ("c", 20)}
    every = [(one.kind, one.backend, one.precision) for one in memory.openings(found)]
    assert len(set(every)) == len(every) == 2 * 6 + 2
    for kind in found:
        assert {(kind, "torch", "float32"), (kind, "onnx", "float32")} <= set(every)
    assert {precision for kind, _, precision in every if kind == GGUF} == set(memory.BYTES)


def test_a_ratio_is_the_peak_over_all_numbers_in_their_precision() -> None:
    """In MB of a million bytes, though the system counts in those of 2**20."""
    one = Opening("safetensors", "a", 100_000_000, "onnx", "w8")
    line = memory.row(one, "first", {"peak": 225.0 / 1.048576, "anonymous": 100.0, "child": 0.0, "held": 0.0})
    assert (line["weights"], line["peak"], line["anonymous"], line["child"]) == (112, 225, 105, None)
    assert line["ratio"] == pytest.approx(2)
    assert memory.row(one, "first", {"peak": 225.0 / 1.048576, "anonymous": 100.0, "child": 0.0, "held": 1.5})["ratio"] == pytest.approx(
        1.5
    )


@pytest.mark.parametrize(("shifts", "wanted"), [(False, 1.125), (True, 1.25)])
def test_blocks_count_with_their_scales_and_what_stands_at_their_middle(monkeypatch, tmp_path, shifts: bool, wanted: float) -> None:
    """64 numbers in each of 8 columns, 8 bits and a scale of 4 bytes for 32 of them; and 4 bytes more where zero is elsewhere."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path))
    held = {"packed": np.ones((8, 2, 32), np.uint8), "scales": np.ones((8, 2), np.float32), "middles": np.ones((2, 8), np.float32)}
    facts = {"K": 64, "N": 8, "bits": 8, "block_size": 32}
    nodes = [helper.make_node("MatMulNBits", ["x", "packed", "scales"], ["y"], "a", domain="com.microsoft", **facts)]
    nodes += [helper.make_node("MatMul", ["means", "middles"], ["z"], "a.shifts")] if shifts else []
    used = {name for node in nodes for name in node.input}
    constants = [numpy_helper.from_array(array, name) for name, array in held.items() if name in used]
    folder = tmp_path / "exports" / "ab" / "abc"
    folder.mkdir(parents=True)
    model = helper.make_model(helper.make_graph(nodes, "g", [], [], constants))
    onnx.save_model(model, folder / "model.onnx", save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    assert memory.bytes_of_a_number() == pytest.approx(wanted)
