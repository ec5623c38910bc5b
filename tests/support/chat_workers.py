"""Processes that write chat templates serve one conversation after the other in tests: whoever is done with one leaves it to the next."""

from __future__ import annotations

import atexit
import subprocess
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

Worker = subprocess.Popen[bytes]


def share(rendering: Any) -> None:
    """Let `modelgraft_plugins.chat_rendering` take processes of the same command and environment that nobody uses any more."""
    if isinstance(rendering.subprocess, Shared):
        return
    shared, end = Shared(rendering._stop), rendering.Renderer._end

    def ended(self: Any, worker: Worker) -> None:
        worker.kill()  # nobody takes it again
        worker.wait()
        end(self, worker)

    rendering.subprocess, rendering._stop, rendering.Renderer._end = shared, shared.leave, ended
    atexit.register(shared.stop_all)


class Shared:
    """Stands for the module `subprocess` where only `Popen` is asked of it."""

    PIPE, DEVNULL = subprocess.PIPE, subprocess.DEVNULL

    def __init__(self, stop: Any) -> None:
        self.stop = stop
        self.idle = defaultdict[Any, list[Worker]](list)
        self.kinds = dict[int, Any]()

    def Popen(self, words: Sequence[str], *, env: Mapping[str, str], **more: Any) -> Worker:  # noqa: N802 as it is called there
        """One that is idle, or a new one."""
        kind = (*words, *sorted(env.items()))
        while self.idle[kind]:
            worker = self.idle[kind].pop()
            if worker.poll() is None:
                return worker
            self.stop(worker)
        worker = subprocess.Popen(words, env=env, **more)
        self.kinds[worker.pid] = kind
        return worker

    def leave(self, worker: Worker) -> None:
        """Keep one that still runs for whoever needs one next."""
        if worker.poll() is None:
            self.idle[self.kinds[worker.pid]].append(worker)
        else:
            self.stop(worker)

    def stop_all(self) -> None:
        """End what nobody uses."""
        for workers in self.idle.values():
            for worker in workers:
                self.stop(worker)
