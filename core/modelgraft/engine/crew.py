"""The threads of a pipeline: made when there is work for them, daemons all, ended with the pipeline."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

AT_ONCE = 4  # threads that are made without waiting to see whether those at work become free soon
MOST = 64  # nodes that wait outside the GIL at the same time; more than this wait for a thread


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
