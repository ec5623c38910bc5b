"""Who waits for whom on a GPU: torch and the sessions of a device share one stream, so that nobody waits on the host.

A session of the CUDA provider works on a stream of its own, which neither waits for torch's nor is waited for
(onnxruntime issues 26609 and 32673): it may read what torch has not written yet. There are two ways out. The host can wait
before and after each run, as transformers' runner does (`torch.cuda.current_stream().synchronize()`, `synchronize_outputs()`),
and then the GPU idles while Python works. Or the session is opened on a stream of torch's (provider option
`user_compute_stream`, onnxruntime pull request 19229) and told not to wait for the device at the end of a run (run option
`disable_synchronize_execution_providers`, as `onnxruntime.transformers.io_binding_helper.GpuBinding` does). This is the second:

- The stream comes from torch's pool, so it is not the default one, whose handle 0 means "none given" to onnxruntime, and
  it lives as long as the process, longer than any session.
- It waits for torch's current stream before a run, and that one waits for it afterwards, both on the device. The current
  stream of a thread is torch's own affair: lanes of the scheduler may have different ones.
- Memory that was given to it by another stream is marked (`record_stream`), so that torch's allocator does not hand it out
  again while a run may still read it; `mine` marks what goes the other way. What is made inside belongs to the stream itself.
- The host still waits where it must: for numbers that it looks at, and for outputs that a graph gives on the host.
- One stream serves all sessions of a device, so runs never overlap there. Nor do the lanes of the scheduler, which takes one
  job at a time on a CUDA device; capturing a CUDA graph relies on that, for other work on the device would be caught by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any, Protocol

import numpy
import torch

from modelgraft.plugin import Array
from modelgraft_plugins.onnx.runtime import runtime

UNCAPTURED = -1  # the `gpu_graph_id` of a run that neither captures nor replays


class Order(Protocol):
    """Puts what torch and a session do on a device one after the other."""

    options: Any  # RunOptions of a plain run; `Any`: onnxruntime has no types

    def __call__(self, *given: Array) -> AbstractContextManager[None]:
        """Inside, torch and the sessions of the device work in turn; `given` comes from outside."""
        ...

    def wait(self) -> None:
        """Let the host wait until everything so far is done."""
        ...

    def hand_over(self, made: Sequence[Array]) -> None:
        """Mark what was made inside and is used outside."""
        ...


class CudaOrder:
    """An Order on a CUDA device."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self.stream = stream_of(device)
        self.options = run_options(UNCAPTURED)

    @contextmanager
    def __call__(self, *given: Array) -> Iterator[None]:
        """See Order."""
        outside = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(outside)
        for tensor in given:
            if not isinstance(tensor, numpy.ndarray) and tensor.is_cuda:  # an array is the host's
                tensor.record_stream(self.stream)
        try:
            with torch.cuda.stream(self.stream):
                yield
        finally:
            outside.wait_stream(self.stream)

    def wait(self) -> None:
        """See Order."""
        self.stream.synchronize()

    def hand_over(self, made: Sequence[Array]) -> None:
        """See Order."""
        outside = torch.cuda.current_stream(self.device)
        for tensor in made:
            if not isinstance(tensor, numpy.ndarray) and tensor.is_cuda:
                tensor.record_stream(outside)


def order_of(device: str) -> Order | None:
    """The order on a device, "cuda:0"; None for the CPU, where a run is over when the call is."""
    return None if device == "cpu" else CudaOrder(device)


@cache
def stream_of(device: str) -> torch.cuda.Stream:
    """The one stream of a device that torch and all sessions share. Takes it from torch's pool, which never destroys it."""
    return torch.cuda.Stream(torch.device(device))  # type: ignore[no-untyped-call]  # torch's own


def run_options(graph: int) -> Any:
    """Options of a run that the host does not wait for.

    graph  the id under which the run is captured, and replayed from then on; UNCAPTURED for none
    """
    options = runtime().RunOptions()
    options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    options.add_run_config_entry("gpu_graph_id", str(graph))
    return options
