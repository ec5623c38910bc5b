"""One run: everything that is its own, so that several runs of one pipeline may be under way. A pipeline holds weights, a run all else.

Which run a call belongs to follows from where it is made: a run that begins is set in the context of its thread, and in that
of each thread that works for it. Code that waits in a loaded node all its life, such as a NodeRuntime, asks there.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

from modelgraft.engine.events import OF_NODES, TRACED_KINDS, Event, Sink, Warned, facts_of, misfit
from modelgraft.kernel.words.errors import Cancelled, InputError, NodeError, PluginError

LOOK_S = 0.01  # how often `Stop.wait` looks


class Stop:
    """Whether a run is to stop. Once it is, it stays so."""

    _is_set = False  # of the class, because one is made for every run

    def set(self) -> None:
        """Stop the run: nothing new starts, and loops that look end at their next step."""
        self._is_set = True

    def is_set(self) -> bool:
        """Whether the run is to stop."""
        return self._is_set

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is to stop, for a time at most; gives whether it is."""
        end = None if timeout is None else time.monotonic() + timeout
        while not self._is_set and (end is None or time.monotonic() < end):
            time.sleep(LOOK_S)
        return self._is_set


class Run:
    """One run of a pipeline, from the inputs to the result.

    seed        of everything that is drawn
    cancelled   whether it is to stop
    limit_s     the most seconds that its nodes may take together, from the first to the last; None: as long as they like
    is_heard    somebody takes its events;  is_streamed  and reads them as they come
    is_given_up whoever read its events has waited for it in vain
    count       the size of the batch;  is_single  no input was a batch, so outputs come back as single values
    is_of_map   it is one of many whose results belong together
    keys        the keys of what it gives in the cache, by node
    said        its warnings;  kept  the events that a trace is made of, in a pipeline opened with `trace`; no contents are in them
    failed      the nodes that have failed, and which it goes on without
    failure     the error that a node ended it with, which carries what was ready
    left        the nodes that did not stop, and were left behind in foreign code
    """

    count = 1
    is_single = True
    is_of_map = False
    is_heard = False
    is_streamed = False
    is_given_up = False
    limit_s: float | None = None
    keys: Mapping[str, str] = MappingProxyType({})
    kept: Sequence[Event] = ()
    failed: frozenset[str] = frozenset()
    failure: NodeError | InputError | None = None
    left: tuple[str, ...] = ()
    said: Sequence[str] = ()
    _stop: Stop | None = None
    _listeners: tuple[Sink, ...] = ()
    _id = ""

    def __init__(
        self,
        seed: int,
        worded: Callable[[str], str] = str,
        hearers: Callable[[], Sequence[Sink]] | None = None,
        *,
        sink: Sink | None = None,
        hooks: Sink | None = None,
        limit_s: float | None = None,
        is_traced: bool = False,
    ) -> None:
        """sink, hooks: who takes its events;  worded: words what is told for whoever opened the pipeline.
        hearers: gives the nodes that listen to others, as they are loaded.

        What most runs leave as it is stands in the class: a run is made for every record of a small graph.
        """
        self.seed, self._worded, self._hearers = seed, worded, hearers
        if sink is not None or hooks is not None or is_traced:
            self.is_streamed = sink is not None
            self._listeners = tuple(each for each in (sink, hooks, self._keep if is_traced else None) if each is not None)
            self.is_heard = True
        if limit_s is not None:
            self.limit_s = limit_s

    @property
    def cancelled(self) -> Stop:
        """Whether it is to stop: made for the first who asks, one for all threads."""
        return self._stop or self.__dict__.setdefault("_stop", Stop())

    @property
    def id(self) -> str:
        """What tells it from all other runs; its events carry it."""
        if not self._id:
            self._id = os.urandom(8).hex()
        return self._id

    def emit(self, kind: type[Event], node: str = "", /, **facts: Any) -> None:
        """Tell that something happened: warnings are kept for the result, and all of it goes to whoever listens."""
        if kind is Warned:
            facts["text"] = self._worded(str(facts["text"]))
        event = kind(node=node, run=self.id, **facts)
        if isinstance(event, Warned) and not event.lasting:
            self.note(f"{node}: {event.text}" if node else event.text)
        for hear in self._listeners:
            hear(event)
        if self._hearers is not None and (nodes := self._hearers()):
            before = RECORDS.set(None)  # what they tell of records is none of the call that tells this
            try:
                for hear in nodes:
                    hear(event)
            finally:
                RECORDS.reset(before)

    def note(self, text: str) -> None:
        """Keep a warning for the result, and tell nobody of it now."""
        self.__dict__.setdefault("said", []).append(text)  # at once: nodes may say something side by side

    @property
    def has_hearers(self) -> bool:
        """Whether anybody takes its events: whoever asked for them, or a node that listens to others."""
        return self.is_heard or (self._hearers is not None and bool(self._hearers()))

    def _keep(self, event: Event) -> None:
        if isinstance(event, TRACED_KINDS):
            self.kept = [*self.kept, event]

    def end(self) -> None:
        """Tell nobody any more: what comes from nodes that were left behind is of no run."""
        if self.is_heard:
            self._listeners, self.is_heard = (), False
        self._hearers = None

    def outputs(self) -> Mapping[str, Any]:
        """What was ready when it failed, by `node.port`."""
        return {} if self.failure is None else self.failure.outputs


SERVING: ContextVar[Run | None] = ContextVar("run", default=None)
RECORDS: ContextVar[Sequence[int] | None] = ContextVar("records", default=None)  # of the batch that a call has; None: all, in their order


def current() -> Run:
    """The run that this call belongs to."""
    run = SERVING.get()
    assert run is not None, "what runs belongs to a run"
    return run


def tell(kind: type[Event], node: str = "", /, **facts: Any) -> None:
    """Tell the run that this call belongs to, if it belongs to one, that something happened."""
    run = SERVING.get()
    if run is not None:
        run.emit(kind, node, **facts)


class NodeRuntime:
    """What loaded code may ask of the run that it serves. There is one for each node; which run it is follows from who asks.

    Code that wants it has a method `bind(runtime)`, called once after loading. A long loop calls `check()` at every
    step and `emit(...)` for what a user may want to watch: `emit("token", text=...)`, `emit("piece", port=, value=)`,
    `emit("progress", done=, total=)`, `emit("warning", text=)`. A thread that the code starts by itself serves no run,
    unless it is started in a copy of the context: `Thread(target=contextvars.copy_context().run, args=(work,))`.

    seed, emit  what it offers outside of a run
    """

    def __init__(self, node: str, component: str = "", seed: int = 0, emit: Callable[..., None] | None = None) -> None:
        self.node, self.component = node, component
        self.hearer: Sink | None = None
        self._seed, self._emit, self._stop = seed, emit, Stop()

    @property
    def seed(self) -> int:
        """The seed of the run."""
        run = SERVING.get()
        return self._seed if run is None else run.seed

    @property
    def cancelled(self) -> Stop:
        """Whether the run is to stop."""
        run = SERVING.get()
        return self._stop if run is None else run.cancelled

    @property
    def run(self) -> str:
        """The id of the run; "" outside of one."""
        run = SERVING.get()
        return "" if run is None else run.id

    def record(self, row: int) -> int:
        """The number in the batch of the run of a record that the call under way was given."""
        records = RECORDS.get()
        return row if records is None else records[row]

    def listen(self, hear: Sink) -> None:
        """Hear what other nodes tell while they work, in every run from when the node is loaded: on their thread, which waits meanwhile.

        So a part can begin before another one is done, such as a voice while its text is written. What `hear` raises ends the run.
        """
        self.hearer = hear

    def emit(self, kind: str, /, **facts: Any) -> None:
        """Tell that something happened. Raises PluginError for what no event has."""
        run = SERVING.get()
        if run is None:
            if self._emit is not None:
                self._emit(kind, **facts)
            return
        if wrong := misfit(kind, tuple(facts)):
            raise PluginError(f"node '{self.node}' tells of {wrong}")
        told = OF_NODES[kind]
        records = RECORDS.get()
        if records is not None and "record" in facts_of(told) and (number := facts.get("record", 0)) < len(records):
            facts["record"] = records[number]  # code counts those that it was given
        run.emit(told, self.node, **facts)

    @property
    def is_heard(self) -> bool:
        """Whether anybody takes what is told now, beside warnings, which every result holds: what nobody hears need not be made."""
        run = SERVING.get()
        return self._emit is not None if run is None else run.has_hearers

    def check(self) -> None:
        """Raise Cancelled when the run was stopped."""
        if self.cancelled.is_set():
            raise Cancelled(f"{self.node} was stopped", node=self.node, component=self.component)

    def node_seed(self) -> int:
        """A seed of this node in this run: the same for the same run seed, different between nodes."""
        return (self.seed * 0x9E3779B1 + zlib.crc32(self.node.encode())) & 0x7FFF_FFFF_FFFF_FFFF
