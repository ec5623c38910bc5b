"""Nodes that cannot be shared: runs that need one at the same time take turns, node by node and not pipeline by pipeline.

Shared are functions and modules: a call of them leaves nothing behind. Taken in turns is what may hold something between two
calls or during one: code that a component loads (it may keep what it likes), nodes that may be let go of (lazy ones, and those
with `keep: false`), what a component or its backend says is not to be shared (language models, sessions with memory of their
own), and whatever lies on one CUDA device.
"""

from __future__ import annotations

import threading
from typing import Any

from modelgraft.engine.backend import Call
from modelgraft.engine.layout import Job
from modelgraft.engine.run import current
from modelgraft.kernel.words.errors import Cancelled, NodeError

NOTICE_S = 0.05  # how long a run that waits may take to notice that it was stopped


class Turn:
    """The place where runs wait for each other: one call at a time."""

    __slots__ = ("_is_lost", "_lock")

    def __init__(self) -> None:
        self._lock, self._is_lost = threading.Lock(), False

    def enter(self, job: Job) -> None:
        """Wait until nobody else is in.

        Raises Cancelled when the run was stopped meanwhile, NodeError when a call that does not come back holds the place.
        """
        if self._lock.acquire(blocking=False):
            return
        run, name, component = current(), job.name, job.step.node.component.id
        while not self._lock.acquire(timeout=NOTICE_S):
            if run.cancelled.is_set():
                raise Cancelled(f"stopped before node '{name}' ran", node=name, component=component)
            if self._is_lost:
                found = f"node '{name}' ({component}) is held by a run that was left behind in foreign code; the next run loads it anew"
                raise NodeError(found, node=name, component=component)

    def leave(self) -> None:
        """Let the next one in."""
        self._lock.release()

    def lose(self) -> None:
        """Send those away who wait: who is in does not come back."""
        self._is_lost = True


class Turns:
    """The places of a pipeline, by what is not shared: a node, or a CUDA device."""

    def __init__(self) -> None:
        self._turns: dict[str, Turn] = {}

    def of(self, job: Job, *, is_shared: bool) -> Turn | None:
        """Where a job waits; None when it need not.

        is_shared  it stays loaded, and its backend says that calls may overlap
        """
        node = job.step.node
        if not job.step.lane.startswith("cuda") and is_shared and node.component.is_shared:
            return None
        return self._turns.setdefault(_key(job), Turn())

    def lose(self, job: Job) -> None:
        """Make a new place for a job that does not come back."""
        turn = self._turns.pop(_key(job), None)
        if turn is not None:
            turn.lose()


def in_turn(call: Call, job: Job, turn: Turn | None) -> Call:
    """Wrap what runs a node so that it waits for its turn; the call itself when it need not."""
    if turn is None:
        return call

    def run(*arguments: Any) -> Any:
        turn.enter(job)
        try:
            return call(*arguments)
        finally:
            turn.leave()

    return run


def _key(job: Job) -> str:
    return job.step.lane if job.step.lane.startswith("cuda") else job.name
