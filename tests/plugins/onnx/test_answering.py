"""What an export is compared with is computed beside the writing of it."""

from __future__ import annotations

import ctypes
import math
import threading
from pathlib import Path

import pytest
import torch

from modelgraft.plugin import ExportError, InputError
from modelgraft_plugins.onnx import plain
from modelgraft_plugins.onnx.exporting import answering
from modelgraft_plugins.onnx.tuned import Fresh

LETS_SET = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "omp_set_num_threads"), reason="torch computes by another library here")


def test_a_module_answers_while_the_block_goes_on():
    """As it does alone, without gradients; who asks twice gets the same."""
    module, x, goes_on = torch.nn.Linear(3, 2), torch.rand(5, 3), threading.Event()

    def ask():
        assert goes_on.wait(60)
        return module(x)

    with answering(module, ask) as told:
        goes_on.set()
        assert told() is told()
    torch.testing.assert_close(told(), module(x).detach())
    assert not told().requires_grad


def test_what_it_raises_is_raised_where_it_is_asked_for():
    """And nowhere else: nobody may have asked."""
    with answering(torch.nn.Linear(3, 2), lambda: torch.zeros(2) @ torch.zeros(3)) as told:
        pass
    with pytest.raises(RuntimeError):
        told()


def test_an_export_is_asked_while_torch_is_still_at_work(monkeypatch):
    """What it raises is told behind what torch gives, which may be the reason."""
    asked, x = threading.Event(), torch.rand(2, 3)

    def exported(*_):
        asked.set()
        raise InputError("output 'y' of the export has NaN")

    def told(number):
        assert asked.wait(60)
        return [(torch.full((2, 3), number),)]

    monkeypatch.setattr(plain, "open_fresh", lambda *_, **__: None)
    monkeypatch.setattr(plain, "Exported", lambda *_, **__: exported)
    for number, found in ((0.0, "the export cannot run: output 'y'"), (math.nan, "torch itself gives NaN")):
        asked.clear()
        with pytest.raises(ExportError, match=found):
            plain._compared(lambda number=number: told(number), Path("graph.onnx"), "float32", Fresh(), [(x,)])


@LETS_SET
def test_a_core_is_left_to_what_goes_on_beside_it():
    """Whatever other threads compute with stays as it was."""
    before = torch.get_num_threads()
    with answering(torch.nn.Linear(3, 2), torch.get_num_threads) as told:
        assert told() == max(1, before - 1)
        assert torch.get_num_threads() == before
    with answering(torch.nn.Linear(3, 2), torch.get_num_threads, is_alone=True) as told:
        assert told() == before
    assert torch.get_num_threads() == before
