"""Batches side by side: while some are under way the caller reads the next one, and what they give comes back in order."""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import TypeVar

from modelgraft.engine.run import Run
from modelgraft.engine.scheduler import Crew
from modelgraft.kernel.words.errors import Cancelled, InputError
from modelgraft.kernel.words.plan import Plan

T = TypeVar("T")
R = TypeVar("R")

USUAL_AHEAD = 2  # one prepares its records while the one before it is in the encoder, and the caller decodes the third
MOST_AHEAD = 4  # threads that a crew makes without waiting
NOTICE_S = 0.1  # how long a Ctrl-C may go unnoticed that comes in the moment before a wait begins
LEAVE_S = 5.0  # how long those are waited for that nobody wants any more

Ended = SimpleQueue[R | BaseException]  # of one batch: what it gave, or what it raised


class UnderWay:
    """The runs of one map that are under way, so that they can be stopped together and no other with them."""

    def __init__(self) -> None:
        self._runs, self._is_over = set[Run](), False

    @contextmanager
    def one(self, run: Run) -> Iterator[Run]:
        """Hold a run while the block lasts. One that begins when all were stopped is stopped too."""
        self._runs.add(run)
        if self._is_over:
            run.cancelled.set()
        try:
            yield run
        finally:
            self._runs.discard(run)

    def stop(self) -> None:
        """Stop those that are under way, and whatever would begin later."""
        self._is_over = True
        for run in tuple(self._runs):
            run.cancelled.set()


def ahead_for(records: object, plan: Plan, *, asked: int | None) -> int:
    """How many batches of a map are to be under way.

    asked  what the caller wants; None: what suits the records and the plan

    Raises InputError for a number that means nothing.
    """
    if asked is not None and not 0 <= asked <= MOST_AHEAD:
        raise InputError(f"ahead is {asked}; wanted: 0 to {MOST_AHEAD}, or None")
    return asked if asked is not None else usual_ahead(plan) if isinstance(records, Sequence) else 0


def usual_ahead(plan: Plan) -> int:
    """How many batches under way suit a plan: 0 where no node computes outside of Python, and where memory is bounded."""
    return USUAL_AHEAD if not plan.limits and any(step.node.component.function is None for step in plan.steps) else 0


def side_by_side(batches: Iterable[T], work: Callable[[T], R], *, ahead: int, stop: Callable[[], None], name: str) -> Generator[R]:
    """Give what `work` gives for each batch, in their order, with `ahead` of them under way at a time.

    batches  are read in the thread of the caller, one beyond those that are under way: their maker need not know of threads
    work     is called in threads of a crew
    stop     is called when somebody leaves before the end, or one has failed: it ends those that are under way

    Raises what `work` or `batches` raises, once those that are under way have ended; Ctrl-C is Cancelled, as in a run.
    """
    crew, pending, is_over = Crew(name), deque[Ended[R]](), False
    try:
        for batch in batches:
            while pending and (len(pending) == ahead or not pending[0].empty()):
                yield _outcome(pending)
            pending.append(_begun(crew, work, batch))
            del batch  # what it holds is freed as soon as it has run
        while pending:
            yield _outcome(pending)
        is_over = True
    except KeyboardInterrupt as error:
        raise Cancelled("stopped by the user", node="") from error
    finally:
        if not is_over:
            stop()
            _wait_for(pending)
        crew.close()


def _begun(crew: Crew, work: Callable[[T], R], batch: T) -> Ended[R]:
    outcome: Ended[R] = SimpleQueue()
    given = [batch]
    context = contextvars.copy_context()

    def task() -> None:
        try:
            outcome.put(context.run(work, given.pop()))
        except BaseException as error:  # noqa: BLE001 raised again in the thread of the caller
            outcome.put(error)

    if not crew.submit(task):
        crew.grow()
    return outcome


def _outcome(pending: deque[Ended[R]]) -> R:
    """What the oldest batch gave; it stays among the pending ones until it has ended."""
    while True:
        with suppress(Empty):
            found = pending[0].get(timeout=NOTICE_S)
            break
    pending.popleft()
    if isinstance(found, BaseException):
        raise found
    return found


def _wait_for(pending: deque[Ended[R]]) -> None:
    for outcome in pending:
        with suppress(Empty):
            outcome.get(timeout=LEAVE_S)
