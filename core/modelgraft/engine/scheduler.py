"""Lanes: jobs that do not need each other run side by side, in threads.

A worker that finishes a job goes on with the first job that this frees, in place; others are handed to the crew. Jobs of
one CUDA device never overlap, jobs that fill a core do so at most once per core, light code always may. On a failure
nothing new starts, what runs sees `cancelled` and is waited for, and the first failure is the one that is raised.
"""

from __future__ import annotations

import heapq
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from modelgraft.engine.backend import Call
from modelgraft.engine.compile import pick
from modelgraft.engine.layout import Layout
from modelgraft.engine.run import SERVING, Run
from modelgraft.engine.turns import Turn
from modelgraft.kernel.words.errors import Cancelled

DRAIN_S = 5.0  # how long nodes that are still running are waited for when a run stops
GRACE_S = 0.25  # how long a node that is over its limit may still take to notice
NOTICE_S = 0.1  # how long a Ctrl-C may go unnoticed that comes in the moment before the wait begins
PATIENCE_S = 0.001  # how long a ready job waits for a thread to become free before another is made
AT_ONCE = 4  # threads that are made without waiting to see whether those at work become free soon
MOST = 64  # nodes that wait outside the GIL at the same time; more than this wait for a thread


@dataclass(frozen=True, slots=True)
class Ran:
    """What a run in lanes gave.

    values     the wanted values;  stamps  (start, end, thread) of each job that ran, by index
    """

    values: tuple[Any, ...]
    stamps: dict[int, tuple[float, float, str]]


@dataclass(eq=False)
class Stopped(Exception):
    """A run in lanes that did not finish; the engine makes an error of it.

    job        the job that failed, was over its limit, or was running when the caller stopped it
    cause      what it raised; None when it, or the whole run, was over its limit
    ready      the values that were there, by slot
    abandoned  jobs that did not stop: their threads are left alone
    """

    job: int | None
    cause: BaseException | None
    ready: dict[int, Any] = field(default_factory=dict)
    abandoned: tuple[int, ...] = ()
    is_of_run: bool = False


def run_in_lanes(
    layout: Layout,
    calls: Sequence[Call],
    given: list[Any],
    *,
    crew: Crew,
    run: Run,
    limits: Sequence[float | None],
    turns: Sequence[Turn | None] | None = None,
) -> Ran:
    """Run the jobs of a layout in the threads of a crew, and wait for them.

    calls   what runs each job;  limits  the most seconds each may take, from when it has its turn
    turns   where each waits that is not shared with other runs; None: all are
    given   the given values; the list is emptied, so that they can be freed
    Raises Stopped.
    """
    execution = _Execution(layout, calls, given, crew=crew, run=run, limits=limits, turns=turns or [None] * len(calls))
    given.clear()
    return execution.wait()


def lane_width(lane: str) -> int | None:
    """How many jobs a lane takes at a time; None: any number."""
    if lane == "free":
        return None
    return (os.cpu_count() or 1) if lane == "cpu" else 1


class _Execution:
    """One run. Everything that changes is changed under the lock, except the call of the node itself."""

    def __init__(
        self,
        layout: Layout,
        calls: Sequence[Call],
        given: Sequence[Any],
        *,
        crew: Crew,
        run: Run,
        limits: Sequence[float | None],
        turns: Sequence[Turn | None],
    ) -> None:
        self.layout, self.calls, self.crew, self.run, self.limits, self.turns = layout, calls, crew, run, limits, turns
        self.changed = threading.Condition()
        self.deadline = None if run.limit_s is None else time.perf_counter() + run.limit_s
        self.values: list[Any] = [*given, *([None] * (len(layout.slots) - len(given)))]
        self.waiting = [len(job.after) for job in layout.jobs]
        self.followers = _followers(layout)
        self.uses = _uses(layout)
        self.left = len(layout.jobs)
        self.running: dict[int, float] = {}
        self.stamps: dict[int, tuple[float, float, str]] = {}
        self.taken: dict[str, int] = defaultdict(int)
        self.queued: dict[str, list[int]] = defaultdict(list)
        self.stopped: Stopped | None = None
        self.backlog = False  # a ready job waits for a thread
        self.is_over = False  # the run was given up: jobs that come back from foreign code change nothing

    # -- the thread that waits ------------------------------------------------------------------------------------------

    def wait(self) -> Ran:
        try:
            self._start(index for index, count in enumerate(self.waiting) if count == 0)
            with self.changed:
                while self.left and self.stopped is None:
                    self.changed.wait(self._patience())
                    self._watch()
        except KeyboardInterrupt as error:
            with self.changed:
                self._stop(Stopped(min(self.running, default=None), error))
        if self.stopped is not None:
            raise self._drain(self.stopped)
        return Ran(tuple(self.values[slot] for slot in self.layout.wanted), self.stamps)

    def _patience(self) -> float:
        """How long to sleep at most: until the next limit, or until more threads are to be made."""
        limits = [started + limit for job, started in self.running.items() if (limit := self.limits[job]) is not None]
        limits += [self.deadline] if self.deadline is not None else []
        until = max(0.0, min(limits) - time.perf_counter()) if limits else NOTICE_S
        return min(until, PATIENCE_S if self.backlog else NOTICE_S)

    def _watch(self) -> None:
        if self.backlog:
            self.backlog = False
            self.crew.grow()
        now = time.perf_counter()
        late = [job for job, started in self.running.items() if (limit := self.limits[job]) is not None and now - started >= limit]
        if late and self.stopped is None:
            self._stop(Stopped(min(late), None))
        elif self.deadline is not None and now >= self.deadline:
            self._stop(Stopped(min(self.running, default=None), None, is_of_run=True))

    def _stop(self, why: Stopped) -> None:
        """Note why the run stops, unless it stops already; nothing new starts from here."""
        if self.stopped is None:
            self.stopped = why
        self.run.cancelled.set()
        self.changed.notify_all()

    def _drain(self, stopped: Stopped) -> Stopped:
        """Wait for what is still running, with a bound; a second Ctrl-C ends the waiting."""
        grace = set() if stopped.cause is not None else set(self.running) if stopped.is_of_run else {stopped.job}
        now = time.perf_counter()
        try:
            with self.changed:
                self.changed.wait_for(lambda: not set(self.running) - grace, timeout=DRAIN_S)
                self.changed.wait_for(lambda: not self.running, timeout=max(0.0, now + GRACE_S - time.perf_counter()))
        except KeyboardInterrupt:
            pass
        with self.changed:
            stopped.abandoned = tuple(sorted(self.running))
            produced = range(len(self.layout.given), len(self.values))
            stopped.ready = {slot: self.values[slot] for slot in produced if self.values[slot] is not None}
            self.is_over = True
        return stopped

    # -- the threads that work ------------------------------------------------------------------------------------------

    def _start(self, ready: Any) -> None:
        """Hand ready jobs to the crew, in the order of the plan, as far as their lanes take them."""
        with self.changed:
            for index in [index for index in sorted(ready) if self._enter(index)]:
                self._submit(index)

    def _submit(self, index: int) -> None:
        if not self.crew.submit(lambda: self._follow(index)) and not self.backlog:
            self.backlog = True
            self.changed.notify_all()

    def _enter(self, index: int) -> bool:
        """Take a place in the lane of a job, or queue it there."""
        lane = self.layout.jobs[index].step.lane
        width = lane_width(lane)
        if width is not None and self.taken[lane] >= width:
            heapq.heappush(self.queued[lane], index)
            return False
        self.taken[lane] += 1
        return True

    def _follow(self, index: int) -> None:
        following: int | None = index
        before = SERVING.set(self.run)
        while following is not None:
            following = self._wait_and_run(following)
        SERVING.reset(before)

    def _wait_and_run(self, index: int) -> int | None:
        """Run a job when it is its turn, hand over what it frees, and give the job to go on with."""
        turn = self.turns[index]
        if turn is None:
            return self._run(index)
        try:
            turn.enter(self.layout.jobs[index])
        except BaseException as error:  # noqa: BLE001 it stops the run, on the thread that waits for it
            with self.changed:
                self._stop(Stopped(index, error))
            return None
        try:
            return self._run(index)
        finally:
            turn.leave()

    def _run(self, index: int) -> int | None:
        job = self.layout.jobs[index]
        with self.changed:
            if self.run.cancelled.is_set():
                self._stop(Stopped(index, Cancelled(f"stopped before {job.name} ran", node=job.name, component=job.step.node.component.id)))
            if self.stopped is not None:
                return None
            arguments = [None if slot is None else self.values[slot] for slot in job.takes]
            self.running[index] = start = time.perf_counter()
            if self.limits[index] is not None:
                self.changed.notify_all()
        try:
            result = self.calls[index](*arguments)
            del arguments  # so that the last use frees them
            given = (result,) if job.sole else tuple(pick(result, port) for port, _ in job.gives)
        except BaseException as error:  # noqa: BLE001 whatever a node raises stops the run, on the thread that waits for it
            with self.changed:
                self.running.pop(index, None)
                self._stop(Stopped(index, error))
            return None
        end = time.perf_counter()
        with self.changed:
            self.stamps[index] = (start, end, threading.current_thread().name)
            return self._finish(index, given)

    def _finish(self, index: int, given: tuple[Any, ...]) -> int | None:
        self.running.pop(index, None)
        if self.is_over:
            return None
        job = self.layout.jobs[index]
        for (_, filled), value in zip(job.gives, given, strict=False):
            self.values[filled] = value
        for slot in job.takes:
            self._release(slot)
        self.left -= 1
        lane = job.step.lane
        self.taken[lane] -= 1
        if not self.left or self.stopped is not None:
            self.changed.notify_all()
            return None
        return self._next(index, lane)

    def _next(self, index: int, lane: str) -> int | None:
        """Find what can start now: jobs that this one freed, and one that waited for its lane."""
        ready: list[int] = []
        for follower in self.followers[index]:
            self.waiting[follower] -= 1
            if self.waiting[follower] == 0:
                ready.append(follower)
        if self.queued[lane]:
            ready.append(heapq.heappop(self.queued[lane]))
        startable = [follower for follower in sorted(ready) if self._enter(follower)]
        for follower in startable[1:]:
            self._submit(follower)
        return startable[0] if startable else None

    def _release(self, slot: int | None) -> None:
        if slot is not None:
            self.uses[slot] -= 1
            if not self.uses[slot]:
                self.values[slot] = None


def _followers(layout: Layout) -> list[list[int]]:
    followers: list[list[int]] = [[] for _ in layout.jobs]
    for index, job in enumerate(layout.jobs):
        for before in job.after:
            followers[before].append(index)
    return followers


def _uses(layout: Layout) -> list[int]:
    """How often each slot is read; wanted slots once more, so that they stay."""
    uses = [0] * len(layout.slots)
    for slot in (*layout.wanted, *(slot for job in layout.jobs for slot in job.takes if slot is not None)):
        uses[slot] += 1
    return uses


# -- threads ------------------------------------------------------------------------------------------------------------


class Crew:
    """Threads that take tasks in the order in which they come. A task must not raise."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._threads = 0
        self._closed = False

    def submit(self, task: Callable[[], None]) -> bool:
        """Hand a task over. Gives False when it has to wait: no thread is idle, and no more are made without `grow`."""
        self._tasks.put(task)
        if self._idle.acquire(blocking=False):
            return True
        with self._lock:
            if self._threads >= AT_ONCE:
                return False
            self._start()
        return True

    def grow(self) -> None:
        """Make a thread for each task that waits."""
        with self._lock:
            for _ in range(min(self._tasks.qsize(), MOST - self._threads)):
                self._start()

    def close(self) -> None:
        """Let the threads end; those that are at work end after it."""
        with self._lock:
            self._closed = True
            for _ in range(self._threads):
                self._tasks.put(None)
            self._threads = 0

    def _start(self) -> None:
        self._threads += 1
        threading.Thread(target=self._work, name=f"{self._name}-{self._threads}", daemon=True).start()

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()
            del task  # what it holds must not live until the next one comes
            self._idle.release()
