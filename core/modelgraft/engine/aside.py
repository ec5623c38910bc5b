"""The process that does what loads have left for later, one job after the other, with what the machine has to spare."""

from __future__ import annotations

import contextlib
import os
import pickle
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from modelgraft.engine import states
from modelgraft.engine.events import Event, Progress
from modelgraft.engine.loading import Loader
from modelgraft.engine.meanwhile import folder_of_states, in_a_line, unpacked
from modelgraft.engine.opening import Opening
from modelgraft.engine.run import SERVING, Run
from modelgraft.engine.states import State
from modelgraft.kernel.shelf.registry import Registry
from modelgraft.sources.installed_plugins import installed_plugins
from modelgraft.sources.storage import locked

EVERY_S = 0.5  # between two tellings of how far it is


def do(work: bytes) -> None:
    """Do the jobs that `Meanwhile.begin` hands over, but for those that another process works on."""
    if hasattr(os, "nice"):
        os.nice(19)  # whoever answers goes first
    opening, jobs = pickle.loads(work)  # noqa: S301 of the process that started this one
    folder, registry = folder_of_states(), installed_plugins()
    states.forget_old(folder)
    with contextlib.ExitStack() as held:
        mine = [job for job in jobs if held.enter_context(locked(states.lock_of(folder, job[0]), waits=False))]
        if not mine:
            return
        held.enter_context(locked(folder / "one-at-a-time.lock"))  # each takes the memory of a model
        for key, _, _, content in mine:
            _do_one(key, content, unpacked(opening, registry), registry, folder)


def _do_one(key: str, content: bytes, opening: Opening, registry: Registry, folder: Path) -> None:
    """Load one node wholly, and tell how that goes and ends."""
    teller = _Teller(folder, key)
    try:
        graph, step = unpacked(content, registry)
        with (
            _served(Run(opening.seed, sink=teller.hear)),
            contextlib.closing(Loader(graph, opening=opening, limits={}, is_aside=True)) as loader,
        ):
            loader.load(step)
    except Exception as error:  # noqa: BLE001 whatever it is, who waits for it must know
        teller.tell(failed=in_a_line(error))
    else:
        teller.tell(made=True)


class _Teller:
    """Tells how far a job is."""

    def __init__(self, folder: Path, key: str) -> None:
        self._folder, self._key, self._last = folder, key, 0.0
        self._state = State(since=time.time(), process=os.getpid())
        self.tell()

    def hear(self, event: Event) -> None:
        """Take an event of the load."""
        if isinstance(event, Progress) and time.monotonic() - self._last > EVERY_S:
            self.tell(done=event.done, total=event.total, label=event.label)

    def tell(self, **facts: Any) -> None:  # Any: the fields of a State
        """Write down how far it is."""
        self._last = time.monotonic()
        self._state = replace(self._state, **facts)
        states.write(self._folder, self._key, self._state)


@contextlib.contextmanager
def _served(run: Run) -> Iterator[None]:
    """Let a run hear what happens within the block."""
    before = SERVING.set(run)
    try:
        yield
    finally:
        SERVING.reset(before)
