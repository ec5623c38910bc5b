"""What the table of memory opens, and what a figure of it means."""

from __future__ import annotations

import pytest

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
    assert one.weights_mb == pytest.approx(112.5)
    line = memory.row(one, "first", {"peak": 225.0 / 1.048576, "anonymous": 100.0, "child": 0.0})
    assert (line["weights"], line["peak"], line["anonymous"], line["child"]) == (112, 225, 105, None)
    assert line["ratio"] == pytest.approx(2)
