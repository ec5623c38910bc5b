"""A run in a thread of its own, whose events are read while it goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue

from modelgraft.engine.events import Event, RunFailed, RunResult, Sink
from modelgraft.engine.result import Result
from modelgraft.kernel.words.errors import Cancelled

NOTICE_S = 0.1  # how long a Ctrl-C may go unnoticed that comes in the moment before the wait begins
LEAVE_S = 5.0  # how long a run that nobody watches any more is waited for


def stream_events(start: Callable[[Sink], Result], cancel: Callable[[], None]) -> Iterator[Event]:
    """Give the events of a run as they happen, and its result as the last one.

    start  runs, and takes the sink of the events;  cancel  stops that run
    Raises what the run raised, after the events that came before. Closing the iterator stops the run; so does Ctrl-C, which
    raises Cancelled from KeyboardInterrupt.
    """
    events: SimpleQueue[Event | BaseException] = SimpleQueue()

    def work() -> None:
        try:
            events.put(RunResult(result=start(events.put)))
        except BaseException as error:  # noqa: BLE001 raised again on the thread that reads the events
            events.put(RunFailed(error=error))
            events.put(error)

    thread = threading.Thread(target=work, name="modelgraft-stream", daemon=True)
    is_over = False
    try:
        thread.start()
        while not is_over:
            event = _next(events)
            is_over = isinstance(event, BaseException | RunResult)
            if isinstance(event, BaseException):
                raise event
            yield event
    except KeyboardInterrupt as error:
        cancel()
        thread.join(LEAVE_S)
        is_over = True  # or given up: it was waited for
        raise _stopped(events) from error
    finally:
        if not is_over:
            cancel()
            thread.join(LEAVE_S)


def _next(events: SimpleQueue[Event | BaseException]) -> Event | BaseException:
    while True:
        with suppress(Empty):
            return events.get(timeout=NOTICE_S)


def _stopped(events: SimpleQueue[Event | BaseException]) -> Cancelled:
    """What a stopped run raised; when it has not stopped yet, an error that says no more than that."""
    while not events.empty():
        event = events.get()
        if isinstance(event, Cancelled):
            return event
    return Cancelled("stopped by the user", node="")
