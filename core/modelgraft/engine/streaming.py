"""A run in a thread of its own, whose events are read while it goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from types import TracebackType

from modelgraft.engine.events import Event, RunResult
from modelgraft.engine.result import Result
from modelgraft.engine.run import Run
from modelgraft.kernel.words.errors import Cancelled, InputError

NOTICE_S = 0.1  # how long a Ctrl-C may go unnoticed that comes in the moment before the wait begins
LEAVE_S = 5.0  # how long a run that nobody watches any more is waited for

Events = SimpleQueue[Event | BaseException]  # the events of a run, and the error that ends them


class Stream(Iterator[Event]):
    """The events of one run as they happen. Leaving it, by `close`, `with` or by dropping it, stops the run, and no other."""

    def __init__(self, run: Run, events: Events, work: Callable[[], Result]) -> None:
        """work: runs, and puts events into the queue; called in a thread when the first event is asked for."""
        self._run, self._reading = run, _read(run, events, work)
        self._result: Result | None = None
        self._error: BaseException | None = None

    @property
    def id(self) -> str:
        """The id of the run, which its events carry."""
        return self._run.id

    @property
    def result(self) -> Result:
        """The result of the run; waits for it, past events that were not read. Raises as `run` does, or InputError when it was left."""
        for _ in self:
            pass
        if self._error is not None:
            raise self._error
        if self._result is None:
            raise InputError("the stream was closed before its run was over, so that there is no result")
        return self._result

    def close(self) -> None:
        """Stop the run unless it is over, and wait for it. May be called from any thread, and twice."""
        if self._result is None:
            self._run.cancelled.set()
        with suppress(ValueError):  # another thread waits for an event: it gets the error of the run
            self._reading.close()

    def __next__(self) -> Event:
        if self._error is not None:
            raise StopIteration
        try:
            event = next(self._reading)
        except StopIteration:
            raise
        except BaseException as error:
            self._error = error
            raise
        if isinstance(event, RunResult):
            self._result = event.result
        return event

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _read(run: Run, events: Events, work: Callable[[], Result]) -> Generator[Event]:
    """Give the events of a run as they happen, and its result as the last one.

    Raises what the run raised, after the events that came before. Closing the generator stops the run; so does Ctrl-C, which
    raises Cancelled from KeyboardInterrupt. When the last event has been read the thread is over: one that still let go of tensors
    while the process ends would end it by an abort.
    """

    def start() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 raised again on the thread that reads the events
            events.put(error)

    thread = threading.Thread(target=start, name="modelgraft-stream", daemon=True)
    is_over = was_waited_for = False
    try:
        thread.start()
        while not is_over:
            event = _next(events)
            is_over = isinstance(event, BaseException | RunResult)
            if isinstance(event, BaseException):
                raise event
            yield event
    except KeyboardInterrupt as error:
        run.cancelled.set()
        _leave(run, thread)
        was_waited_for = True  # it is over, or given up
        raise _stopped(events) from error
    finally:
        if not is_over:
            run.cancelled.set()
        if not was_waited_for and thread.ident is not None and thread is not threading.current_thread():
            _leave(run, thread)


def _leave(run: Run, thread: threading.Thread) -> None:
    """Wait for a run that is to stop. One that does not, as while something large is imported, is given up: nobody waits for it again."""
    thread.join(LEAVE_S)
    run.is_given_up = thread.is_alive()


def _next(events: Events) -> Event | BaseException:
    while True:
        with suppress(Empty):
            return events.get(timeout=NOTICE_S)


def _stopped(events: Events) -> Cancelled:
    """What a stopped run raised; when it has not stopped yet, an error that says no more than that."""
    while not events.empty():
        event = events.get()
        if isinstance(event, Cancelled):
            return event
    return Cancelled("stopped by the user", node="")
