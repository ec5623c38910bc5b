"""Who waits for whom on a GPU, written down by streams that are none: tests/gpu has the same with real ones."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest
import torch

from modelgraft_plugins.onnx import streams


class Stream:
    """Notes who waits for it."""

    def __init__(self, name, log):
        self.name, self.log = name, log

    def wait_stream(self, other):
        self.log.append(f"{self.name} waits for {other.name}")

    def synchronize(self):
        self.log.append(f"the host waits for {self.name}")


@pytest.fixture
def order(monkeypatch):
    """An order on cuda:1 whose caller works on the stream "outside", and what happens in it."""
    log: list[str] = []
    outside = Stream("outside", log)

    @contextlib.contextmanager
    def working_on(stream):
        log.append(f"on {stream.name}")
        yield
        log.append(f"off {stream.name}")

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: log.append(f"current of {device}") or outside)
    monkeypatch.setattr(torch.cuda, "stream", working_on)
    monkeypatch.setattr(streams, "stream_of", lambda device: Stream("shared", log))
    made = streams.CudaOrder("cuda:1")
    return made, log


def tensor_on(cuda, log):
    return SimpleNamespace(is_cuda=cuda, record_stream=lambda stream: log.append(f"kept for {stream.name}"))


def test_the_shared_stream_works_between_what_comes_before_and_after(order):
    """It waits for the caller's stream, keeps what is given, and lets the caller's stream wait; the host waits for nobody."""
    made, log = order
    with made(tensor_on(True, log), tensor_on(False, log)):
        log.append("run")
    assert log == [
        "current of cuda:1", "shared waits for outside", "kept for shared", "on shared", "run", "off shared", "outside waits for shared",
    ]  # fmt: skip


def test_the_caller_waits_also_after_a_failure(order):
    """What had begun may still write where the caller goes on."""
    made, log = order
    with pytest.raises(ZeroDivisionError), made():
        1 / 0  # noqa: B018 fails
    assert log[-1] == "outside waits for shared"


def test_results_are_kept_for_the_caller_and_the_host_waits_when_told(order):
    """Only what lies on the device can be."""
    made, log = order
    made.hand_over([tensor_on(True, log), tensor_on(False, log)])
    made.wait()
    assert log == ["current of cuda:1", "kept for outside", "the host waits for shared"]


def test_runs_are_not_waited_for_and_captured_only_when_asked():
    """The two options of a run, as onnxruntime reads them."""
    plain, captured = streams.run_options(streams.UNCAPTURED), streams.run_options(3)
    assert [options.get_run_config_entry("gpu_graph_id") for options in (plain, captured)] == ["-1", "3"]
    assert plain.get_run_config_entry("disable_synchronize_execution_providers") == "1"


def test_there_is_no_order_on_the_host():
    """A run there is over when its call is."""
    assert streams.order_of("cpu") is None
