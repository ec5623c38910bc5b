"""What stands for a GPU in the twins of tests that need one: the code for devices runs on memory of the host."""

from __future__ import annotations

from contextlib import contextmanager

from modelgraft.plugin import as_array
from modelgraft_plugins.onnx.streams import run_options


class HostOrder:
    """An Order that waits for nothing, and notes what it was asked for."""

    def __init__(self) -> None:
        self.options, self.heard = run_options(-1), []

    @contextmanager
    def __call__(self, *given):
        self.heard.append(("begin", len(given)))
        yield
        self.heard.append(("end",))

    def wait(self) -> None:
        self.heard.append(("wait",))

    def hand_over(self, made) -> None:
        self.heard.append(("hand over", len(made)))


class CapturingSession:
    """A session on the host that captures as the CUDA provider does.

    A captured run is repeated twice before it counts, and a replay takes `total`, which the host reads, as it was then.

    forgets  an input that a replay takes as it was when it was captured although it lies on the device: a graph that cannot be replayed
    refuses  whether capturing fails
    """

    def __init__(self, session, *, forgets: str = "", refuses: bool = False) -> None:
        self.session, self.forgets, self.refuses = session, forgets, refuses
        self.graphs, self.ran, self.replayed = {}, 0, 0

    def get_provider_options(self):
        return {"CUDAExecutionProvider": {"enable_cuda_graph": "1"}, "CPUExecutionProvider": {}}

    def __getattr__(self, name):
        return getattr(self.session, name)

    def run_with_iobinding(self, binding, options):
        graph = int(options.get_run_config_entry("gpu_graph_id"))
        if graph < 0:
            self.ran += 1
            self.session.run_with_iobinding(binding, options)
        elif graph in self.graphs:
            self.replayed += 1
            self._replay(binding, options, self.graphs[graph])
        elif self.refuses:
            raise RuntimeError("This session cannot use the graph capture feature\nmore of it")
        else:
            fixed = ("total", self.forgets) if self.forgets else ("total",)
            self.graphs[graph] = {name: as_array(binding.kept[name]).copy() for name in fixed}
            for _ in range(3):
                self.session.run_with_iobinding(binding, options)

    def _replay(self, binding, options, fixed):
        held = {name: as_array(binding.kept[name]) for name in fixed}  # on the same memory
        now = {name: array.copy() for name, array in held.items()}
        for name, value in fixed.items():
            held[name][...] = value
        self.session.run_with_iobinding(binding, options)
        for name, value in now.items():
            held[name][...] = value

    def release_captured_graph(self, graph):
        del self.graphs[graph]


def gpu_reason() -> str:
    """Why tests on a GPU are left out here; empty where they run."""
    from modelgraft_plugins.onnx.cuda import why_not

    return why_not()
