"""CUDA graphs for the steps of a decoder: the launches of a whole run, recorded once and sent off as one.

onnxruntime captures the runs of a session that was opened with `enable_cuda_graph`, each under the `gpu_graph_id` of its
run options, if no node of the graph runs elsewhere and nothing is copied to or from the host inside. A replay reads and writes the
addresses that were bound when it was captured, and repeats what the host decided then. That suits a step: its cache,
counters and embeddings keep their places. It does not suit prompts and encoders, whose sizes change: their runs are never
captured.

The host reads one number, `total`, the length of the longest row. A captured step keeps it at the capacity: the operator
places a single token by `seqlens_k`, on the device, and only splits its work by `total`
(contrib_ops/cuda/bert/group_query_attention.cc; on the CPU the logits are the same bit by bit, see the tests).

Nothing says whether another operator kept something of the host's that a replay will miss, such as GatherND (onnxruntime
issue 33875). So graphs with operators that do are not captured at all, and others are believed after a proof: the same step,
and the one after it, give the same logits replayed and run. Otherwise steps go on uncaptured, and a warning says why, once.

Sources: "CUDA Graphs" in onnxruntime's page on the CUDA provider; that the first run is repeated until it is captured, issue
32243 (harmless here: a step writes the same key and value into the same place however often it runs); that a graph belongs to
the thread that captured it, PerThreadContext in cuda_execution_provider.cc (another thread captures its own, under the same id).
"""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch

from modelgraft.plugin import Repeatable
from modelgraft_plugins.onnx.streams import run_options

IN_PLACE = b"GroupQueryAttention"  # whose past and present are the same memory
# GatherND's kernel copies sizes from memory of the host that is gone when it is replayed; what Range gives is as long as a number
# on the host says, such as `total` for a bias over the past.
UNREPLAYABLE = (b"GatherND", b"Range")
CLOSE = 1e-2  # of the largest logit: replays round as runs do, and those of other kernels within what float16 resolves


def is_worth_capturing(path: Path) -> bool:
    """Whether a graph file holds a decoder whose steps could be replayed."""
    text = path.read_bytes()
    return IN_PLACE in text and not any(name in text for name in UNREPLAYABLE)


def can_capture(session: Any) -> bool:
    """Whether a session was opened to capture. `Any`: onnxruntime has no types."""
    return bool(session.get_provider_options().get("CUDAExecutionProvider", {}).get("enable_cuda_graph") == "1")


class Captured:
    """The captured run of a step."""

    def __init__(self, session: Any, binding: Any, step: Repeatable, *, graph: int) -> None:
        """graph: the id of the capture, never used for other addresses."""
        self.session, self.step, self.graph = session, step, graph
        self.replay = partial(session.run_with_iobinding, binding, run_options(self.graph))
        self.is_proven: bool | None = None  # None: not tried yet
        self.exists = False

    def run(self) -> None:
        """Run the step: replayed once that is proven, else plainly."""
        if self.is_proven is None and self.step.has_room:
            self.is_proven = self._prove()
        if self.is_proven:
            self.replay()
        else:
            self.step.plain()

    def release(self) -> None:
        """Let onnxruntime forget the capture."""
        if self.exists:
            self.session.release_captured_graph(self.graph)

    def _prove(self) -> bool:
        """Compare this step and the one after it; what they write here, `run` and the next step write again."""
        moved = 0
        try:
            agrees = self._agrees()
            self.step.move(1)
            moved = 1
            agrees = self._agrees() and agrees
        except Exception as error:  # noqa: BLE001 onnxruntime has no class of its own for what cannot be captured
            return refuse(str(error).partition("\n")[0])
        finally:
            self.step.move(-moved)
        return agrees or refuse("a replay gave other logits than a run")

    def _agrees(self) -> bool:
        self.step.plain()
        expected = self.step.logits.to(torch.float32, copy=True)
        self.replay()
        self.exists = True
        return bool(((self.step.logits.float() - expected).abs().max() <= CLOSE * expected.abs().max()).item())


def refuse(why: str) -> bool:
    """Say that steps are run one launch at a time; gives False."""
    warnings.warn(f"the steps of a decoder are not replayed as a CUDA graph, and take longer: {why}", RuntimeWarning, stacklevel=2)
    return False
