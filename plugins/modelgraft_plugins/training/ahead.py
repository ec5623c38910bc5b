"""The next batches of a stage, read in a thread while a step runs."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from types import TracebackType
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Read = TypeVar("Read")


class Ahead(Generic[Asked, Read]):
    """Reads one thing ahead. What comes out, and which errors are raised, is as if each were read when it is taken.

    read   reads what is asked for, and changes nothing else
    state  what `read` depends on beside that: where it has changed since it was begun, it is read again
    """

    def __init__(self, read: Callable[[Asked], Read], state: Callable[[], object]) -> None:
        self._read, self._state = read, state
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="reads-ahead")
        self._begun: tuple[Asked, object, Future[Read]] | None = None

    def __enter__(self) -> Ahead[Asked, Read]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=True)  # what is under way is waited for: it reads files that are closed next

    def begin(self, asked: Asked) -> None:
        """Begin to read what will be asked for next."""
        self._begun = asked, self._state(), self._pool.submit(copy_context().run, self._read, asked)

    def take(self, asked: Asked) -> Read:
        """What is read of this. Raises what reading raises."""
        begun, self._begun = self._begun, None
        if begun is None:
            return self._read(asked)
        what, state, future = begun
        if what == asked and state == self._state():
            return future.result()
        if not future.cancel():
            future.exception()  # it ends first: one reads at a time
        return self._read(asked)
