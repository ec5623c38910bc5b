"""What the large decoder is, and what a figure of its start means."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks import large


def test_its_tensors_are_those_that_transformers_has_for_its_sizes() -> None:
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**large.SIZES, num_hidden_layers=3, tie_word_embeddings=False))
    assert {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()} == large.shapes(3)


def test_it_has_as_many_numbers_as_tinyllama() -> None:
    """Zhang et al. 2024 (arXiv 2401.02385): 1.1 billion."""
    assert sum(map(math.prod, large.shapes(large.LAYERS).values())) == pytest.approx(1.1e9, rel=0.01)


def test_a_ratio_is_the_peak_over_all_numbers_in_their_precision() -> None:
    """In MB of a million bytes, though the system counts in those of 2**20; imports are part of it."""
    line = large.row("w8", 100_000_000, [{"wall": 5.0, "cpu": 8.0, "peak": 225.0 / 1.048576, "anonymous": 112.5 / 1.048576}])
    assert line["weights"] == 112
    assert line["ratio"].median == pytest.approx(2)
    assert line["own"].median == pytest.approx(1)


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not tell what a process holds")
def test_what_a_process_holds_is_seen_until_it_ends() -> None:
    code = "import time; held = bytearray(b'x') * (64 << 20); time.sleep(0.5); del held; time.sleep(0.1)"
    one = subprocess.Popen([sys.executable, "-c", code])
    held = large._watched(one.pid)
    _, status, _ = os.wait4(one.pid, 0)
    one.returncode = os.waitstatus_to_exitcode(status)
    assert one.returncode == 0
    assert 64 < held["anonymous"] < 128
    assert held["peak"] >= held["anonymous"]
