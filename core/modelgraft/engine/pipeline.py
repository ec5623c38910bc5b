"""An opened graph: a plan with the nodes that it has loaded. Runs it, streams what happens, maps it over records."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any

from modelgraft.engine.backend import Backend
from modelgraft.engine.batches import Record, map_records
from modelgraft.engine.cache import Cache, Outputs
from modelgraft.engine.calls import Call, Check, check_of, checked, gives_masks, is_constant, listed
from modelgraft.engine.crew import Crew
from modelgraft.engine.engine import Engine
from modelgraft.engine.events import Event, NodeCached, NodeSkipped, RunStarted, Sink, Warned
from modelgraft.engine.finite import gives_floats, looked_at_once
from modelgraft.engine.inplace import Habits, apart
from modelgraft.engine.intake import Intake, refuse_seed, refuse_unnamed, take_in
from modelgraft.engine.layout import Job, Layout, spared
from modelgraft.engine.limits import limit_of
from modelgraft.engine.loading import Loader
from modelgraft.engine.observers import by_port, has_watchers, observed
from modelgraft.engine.opening import USUAL, Opening
from modelgraft.engine.prepared import Prepared, prepare
from modelgraft.engine.result import Result, Timeline
from modelgraft.engine.routing import Partial, records_of, routed, routed_nodes
from modelgraft.engine.streaming import stream_events
from modelgraft.kernel.words.errors import GraphError, InputError, ModelgraftWarning, NodeError, PluginError
from modelgraft.kernel.words.graph import Ref
from modelgraft.kernel.words.guard import contained, said
from modelgraft.kernel.words.plans import Plan, Step
from modelgraft.kernel.words.ports import Port
from modelgraft.kernel.words.wording import for_reader
from modelgraft.records import values
from modelgraft.records.absence import ABSENT
from modelgraft.records.digests import size_bytes
from modelgraft.records.owning import Handed, own
from modelgraft.records.record_type import types_of
from modelgraft.sources.archives import only_cached

__all__ = ["ABSENT", "Pipeline", "Result"]

CLOSE_S = 5.0  # how long closing waits for a run that is stuck in foreign code
NONE: frozenset[str] = frozenset()

Replan = Callable[[tuple[str, ...]], Plan]  # a plan for other wanted outputs


class Pipeline:
    """A graph that can be run: nodes are loaded when a run first needs them, and stay loaded until it is closed.

    One run at a time: a call from another thread waits for the one before it. Use it as a context manager, or close it.
    """

    def __init__(self, plan: Plan, *, replan: Replan | None = None, opening: Opening = USUAL, cache: Cache | None = None) -> None:
        self.plan = plan
        self.opening, self._replan = opening, replan
        self._cache = cache or Cache()
        has_new = any(node.source is None and node.component.module is not None for node in plan.graph.nodes.values())
        self._salt = f"weights from seed {opening.seed}" if opening.init == "random" or has_new else ""
        self._types = types_of(plan.graph.graph.registry)
        self._manager = plan.graph.graph.registry.manager
        self._is_watched = opening.trace or has_watchers(self._manager)
        self._loader = Loader(plan.graph, opening=opening, emit=self._emit)
        self._crew = Crew(f"modelgraft-{plan.graph.name}")
        self._lock = threading.Lock()
        self._habits = Habits()
        self._looked_at: set[str] = set()  # the nodes whose results were looked at for NaN
        self._default = prepare(plan)
        self._others: dict[tuple[str, ...], Prepared] = {}
        self._warned: set[str] = set()  # what was handed to Python's warnings, or to the caller of `load`
        self._is_closed = False
        self._sink: Sink | None = None  # of the present run
        self._count, self._is_single = 1, True  # of the present run
        self._keys: Mapping[str, str] = {}  # of the present run
        self._worded = for_reader()
        self._said: list[str] = []  # warnings of the present run
        self._bytes: dict[str, int] = {}  # of the outputs of each node in the present run

    # -- what a user calls ----------------------------------------------------------------------------------------------

    def run(self, /, *unnamed: object, outputs: Sequence[str] | None = None, seed: int | None = None, **inputs: Any) -> Result:
        """Run the graph for one record, or for a batch where an input is a list.

        outputs  what is wanted: outputs of the graph, or any port as "node.port"; None: all outputs of the graph
        seed     of this run; None: that of the pipeline

        Raises InputError for inputs that do not fit, SourceError or PluginError when a node cannot be loaded, NodeError
        (NodeTimeout, Cancelled) when one fails. Ctrl-C stops the nodes that run and raises Cancelled from KeyboardInterrupt.
        """
        refuse_unnamed("run", unnamed, self.plan.graph.inputs)
        with self._lock:
            return self._run(self._prepared(outputs), inputs, seed)

    def stream(self, /, *unnamed: object, outputs: Sequence[str] | None = None, seed: int | None = None, **inputs: Any) -> Iterator[Event]:
        """Run the graph in a thread and give what happens as it does; the last event is of kind `result`.

        Raises as `run` does, after the events that came before. Leaving the loop early stops the run.
        """
        refuse_unnamed("stream", unnamed, self.plan.graph.inputs)

        def start(sink: Sink) -> Result:
            with self._lock:
                return self._run(self._prepared(outputs), inputs, seed, sink)

        return stream_events(start, self.cancel)

    def map(
        self,
        records: Iterable[Record],
        *,
        batch_size: int = 8,
        outputs: Sequence[str] | None = None,
        seed: int | None = None,
    ) -> Iterator[Result]:
        """Run the graph over records, each a mapping of inputs, and give one result per record, in order, as they come.

        A record that fails, whatever its files hold, has a result with `error`; the others of its batch are run again without it.
        An error among the records is handed through as a result, so that whoever reads them need not stop at one. A record
        starts no download.
        """
        if isinstance(records, str | bytes | Mapping):
            example = ", ".join(f"{name!r}: ..." for name in self.plan.graph.inputs)
            raise InputError(f"found {values.describe(records)}, wanted records: a list of mappings, such as [{{{example}}}]")
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; wanted: at least 1")

        def run(batch: Intake) -> Result:
            with self._lock:
                return self._run_values(self._prepared(outputs), batch, seed, is_of_map=True)

        prepared = self._prepared(outputs)
        ports = dict(zip(prepared.plan.wanted, prepared.ports, strict=True))
        return map_records(
            records, run, known=self.plan.graph.inputs, needed=prepared.inputs, ports=ports, batch_size=batch_size, types=self._types
        )

    def load(self) -> tuple[str, ...]:
        """Load every node of the plan now, lazy ones too; gives what a user must know about the loads."""
        with self._lock:
            if self._is_closed:
                raise InputError("the pipeline is closed; open the graph again")
            for step in self.plan.steps:
                self._loader.load(step)
            told = self._lasting(self.plan.steps)
            self._warned |= set(told)
            return told

    def backend(self, name: str) -> Backend | None:
        """The backend of this pipeline, once it has loaded a node with it."""
        return self._loader.backend(name)

    def cancel(self) -> None:
        """Stop the present run, from another thread: it raises Cancelled. Does nothing when there is none."""
        self._loader.cancelled.set()

    def close(self) -> None:
        """Stop the present run, and free the nodes, their devices and the threads. Closing twice does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        self.cancel()
        self._crew.close()
        if not self._lock.acquire(timeout=CLOSE_S):
            return  # a run is stuck in foreign code: what it holds is freed when it comes back
        try:
            self._loader.close()
            self._cache.clear()
            self._default.engines.clear()  # they hold the code of the nodes, and so their weights
            self._others.clear()
        finally:
            self._lock.release()

    def __repr__(self) -> str:
        nodes = self.plan.graph.nodes
        state = "closed" if self._is_closed else f"{len(self._loader.loaded())} loaded"
        return f"<Pipeline {self.plan.graph.name}: {len(nodes)} node{'s' * (len(nodes) != 1)}, {state}>"

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # -- one run --------------------------------------------------------------------------------------------------------

    def _prepared(self, outputs: Sequence[str] | None) -> Prepared:
        if self._is_closed:
            raise InputError("the pipeline is closed; open the graph again")
        if outputs is None:
            return self._default
        wanted = (outputs,) if isinstance(outputs, str) else tuple(outputs)
        if wanted not in self._others:
            if self._replan is None:
                raise InputError("this pipeline was made of a plan alone, which has its outputs; open the graph to ask for others")
            self._others[wanted] = prepare(self._replan(wanted))
        return self._others[wanted]

    def _run(self, prepared: Prepared, inputs: Mapping[str, Any], seed: int | None, sink: Sink | None = None) -> Result:
        with only_cached("this run is offline") if self.opening.offline else nullcontext():
            intake = take_in(inputs, known=self.plan.graph.inputs, needed=prepared.inputs, types=self._types)
        return self._run_values(prepared, intake, seed, sink)

    def _run_values(
        self, prepared: Prepared, intake: Intake, seed: int | None, sink: Sink | None = None, *, is_of_map: bool = False
    ) -> Result:
        if seed is not None:
            refuse_seed(seed)
        self._count, self._is_single, self._sink = intake.count, intake.single, sink
        if self._said:
            self._said = []
        try:
            self._loader.begin(self.opening.seed if seed is None else seed)
            if sink is not None:
                self._emit(RunStarted, "", graph=self.plan.graph.name, seed=self._loader.run_seed, outputs=tuple(prepared.plan.wanted))
            for text in intake.said:
                self._emit(Warned, "", text=text)
            hits = self._look_up(prepared, intake, self._loader.run_seed) if prepared.keyed else {}
            engine = prepared.engine(
                frozenset(hits) if hits else NONE, is_observed=self._is_watched or sink is not None, make=self._engine_maker(prepared)
            )
            without = spared(prepared.plan, engine.layout) if hits else NONE
            for name in sorted(without - hits.keys()) if sink is not None else ():
                self._emit(NodeSkipped, name, reason="the cache has what comes after it")
            given = [intake.values[ref.port] if ref.is_input else hits[ref.node].get(ref.port) for ref in engine.layout.given]
            intake.values.clear()  # so that an input is freed at its last use
            found, timeline = self._run_engine(engine, given, is_of_map=is_of_map)
            if self.opening.trace:
                timeline, self._bytes = replace(timeline, bytes=self._bytes), {}
            return self._result(prepared, found, timeline, without)
        finally:
            self._sink = None

    def _run_engine(self, engine: Engine, given: list[Any], *, is_of_map: bool) -> tuple[tuple[Any, ...], Timeline]:
        try:
            return engine.run(given, self._crew, self._loader.cancelled)
        except (GraphError, PluginError) as error:  # of a node that a record came to, not of those that every record needs
            if is_of_map:
                raise NodeError(said(error), node="") from error
            raise
        except NodeError as error:
            error.outputs = Handed(error.outputs, partial(self._ready, self._count))
            if engine.abandoned:
                self._loader.forget(job.step.node for job in engine.layout.jobs if job.name in engine.abandoned)
                self._default.engines.clear()
                for other in self._others.values():
                    other.engines.clear()
            raise

    @staticmethod
    def _ready(count: int, value: Any) -> Any:
        """What was ready when a node failed: as it is in a run, a batch with ABSENT for what was left out."""
        return own(records_of(value, count) if isinstance(value, Partial) else value)

    def _look_up(self, prepared: Prepared, intake: Intake, seed: int) -> dict[str, Outputs]:
        if not self._cache.is_on:
            return {}
        self._keys = prepared.keys(intake.values, seed, salt=self._salt, count=intake.count)
        hits = prepared.hits(self._cache, self._keys, lambda name, text: self._emit(Warned, name, text=text))
        for name in sorted(hits):
            self._emit(NodeCached, name)
        return hits

    def _result(self, prepared: Prepared, found: tuple[Any, ...], timeline: Timeline, without: frozenset[str]) -> Result:
        ports = zip(prepared.plan.wanted.items(), prepared.ports, prepared.checks, found, strict=True)
        outputs = {name: self._taken(ref, port, check, value) for (name, ref), port, check, value in ports}
        if not (self._loader.has_warnings or self._said):
            return Result(outputs, without, (), timeline)
        lasting = self._lasting(prepared.plan.steps)
        if self._sink is None:  # who streams has heard them as events
            self._warn(lasting)
        return Result(outputs, without, (*lasting, *self._said), timeline)

    def _lasting(self, steps: Iterable[Step]) -> tuple[str, ...]:
        """What loads have told of these steps, worded for whoever opened the pipeline."""
        return tuple(map(self._worded, self._loader.warnings(steps)))

    def _warn(self, texts: Iterable[str]) -> None:
        """Hand what loads have told to Python's warnings, each text once in the life of the pipeline."""
        for text in texts:
            if text not in self._warned:
                self._warned.add(text)
                warnings.warn(text, ModelgraftWarning, stacklevel=_calling_level())

    def _taken(self, ref: Ref, port: Port, check: Check | None, value: Any) -> Any:
        """What the user gets for an output, once it is what was declared. A value of a plugin may do anything when it is looked at."""
        try:
            with contained():
                if check is not None and not isinstance(value, Partial):
                    check(value, self._count)
                return self._show(port, value)
        except NodeError:
            raise
        except Exception as error:  # as in a node
            raise NodeError(f"what {ref} gave cannot be taken: {said(error)}", node=ref.node) from error

    def _show(self, port: Port, value: Any) -> Any:
        """What the user gets for an output: of one record the record, of a batch the list, ABSENT for what was left out.

        In memory of its own: what the cache, other outputs, the inputs or a module hold is not written to by who gets it.
        """
        if value is None or isinstance(value, Partial):
            listed = own(records_of(value, self._count))
            return listed[0] if self._is_single else listed
        return own(values.present(port, value, single=self._is_single))

    # -- engines --------------------------------------------------------------------------------------------------------

    def _engine_maker(self, prepared: Prepared) -> Callable[[Layout], Engine]:
        def make(layout: Layout) -> Engine:
            after_route, runtime = routed_nodes(layout.jobs), self.plan.graph.graph.runtime
            is_observed = self._is_watched or self._sink is not None

            def bind(job: Job, is_checked: bool) -> Call:  # noqa: FBT001 called by the engine only
                call = self._call(job, is_checked=is_checked, is_routed=job.name in after_route)
                return self._watch(call, job, prepared) if is_observed else call

            eager = [job.step for job in layout.jobs if not job.step.node.lazy]
            self._loader.require(step.node for step in eager)
            for step in eager:
                self._loader.load(step)
            limits = [limit_of(job.step.node, runtime, opened=self.opening.timeout_s) for job in layout.jobs]
            return Engine(layout, bind=bind, limits=limits, timings=self.opening.timings, spent=self._habits.spent)

        return make

    def _call(self, job: Job, *, is_checked: bool, is_routed: bool) -> Call:
        """What runs a job, inside out: its code, its lists of wires, its route or its check, and the cache."""
        node = job.step.node
        tell = partial(self._tell_odd, job)
        call = listed(self._lazy(job.step) if node.lazy else self._loader.load(job.step).call, node)
        call = apart(call, node, habits=self._habits, is_watched=is_checked, is_strict=self.opening.debug, tell=tell)
        if node.name not in self._looked_at and gives_floats(node):
            call = looked_at_once(call, node, seen=self._looked_at, state=lambda: self._loader.load(job.step).state, tell=tell)
        if is_routed:
            call = routed(call, node, count=self._batch, check=check_of(node, self._types))
        elif is_checked or gives_masks(node) or is_constant(node):
            call = checked(call, node, count=self._batch, is_stopped=self._is_stopped, types=self._types)
        if job.step.key and node.component.cache and self._cache.is_on:
            call = self._keeping(call, job)
        return call

    def _tell_odd(self, job: Job, text: str, is_lasting: bool) -> None:  # noqa: FBT001 as finite.Tell
        if is_lasting:
            self._loader.warn(job.step, f"{job.step.node.name}: {text}")
        else:
            self._emit(Warned, job.step.node.name, text=text)

    def _lazy(self, step: Step) -> Call:
        return lambda *arguments: self._loader.load(step).call(*arguments)

    def _keeping(self, call: Call, job: Job) -> Call:
        def run(*arguments: Any) -> Any:
            key = self._keys.get(job.name)  # before the call: a node that is left behind must not write under the key of a later run
            result: Any = call(*arguments)
            if key is not None:
                self._cache.put(key, by_port(job.step.node, result))
            return result

        return run

    def _watch(self, call: Call, job: Job, prepared: Prepared) -> Call:
        wanted = {ref.port: name for name, ref in prepared.plan.wanted.items() if ref.node == job.name}
        return observed(
            call,
            job,
            manager=self._manager,
            emit=self._emit,
            wanted=wanted,
            show=self._show,
            measure=self._measure if self.opening.trace else None,
        )

    def _measure(self, name: str, outputs: Mapping[str, Any]) -> int | None:
        size = size_bytes(dict(outputs))
        if size is not None:
            self._bytes[name] = size
        return size

    def _batch(self) -> int:
        return self._count

    def _is_stopped(self) -> bool:
        return self._loader.cancelled.is_set()

    def _emit(self, kind: type[Event], node: str, **facts: Any) -> None:
        """Take what nodes and the loader tell: warnings are kept for the result, all of it goes to whoever listens."""
        if "text" in facts and kind is Warned:
            facts["text"] = self._worded(str(facts["text"]))
        event = kind(node=node, **facts)
        if isinstance(event, Warned) and not event.lasting:
            self._said.append(f"{node}: {event.text}" if node else event.text)
        if self._sink is not None:
            self._sink(event)


def _calling_level() -> int:
    """How many calls above `_warn` the user's own code stands."""
    frame, level = sys._getframe(2), 2
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] == "modelgraft":
        frame, level = frame.f_back, level + 1
    return level
