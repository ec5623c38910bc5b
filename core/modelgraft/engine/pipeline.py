"""An opened graph: a plan with the nodes that it has loaded. Runs it, streams what happens, maps it over records."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import Any

from modelgraft.engine.ahead import UnderWay, ahead_for
from modelgraft.engine.backend import Backend
from modelgraft.engine.batches import MappedRecord, map_records
from modelgraft.engine.binding import Binding
from modelgraft.engine.cache import Cache, Outputs
from modelgraft.engine.engine import Engine
from modelgraft.engine.events import NodeCached, NodeSkipped, RunFailed, RunResult, RunStarted, Sink, Warned
from modelgraft.engine.forms import in_tensors_at
from modelgraft.engine.intake import Intake, refuse_limit, refuse_seed, refuse_unnamed, take_in, take_in_cached
from modelgraft.engine.layout import Job, spared
from modelgraft.engine.loading import Loader
from modelgraft.engine.memory import Memory, memory_of
from modelgraft.engine.observers import has_watchers, hearing
from modelgraft.engine.opening import USUAL_OPENING, Opening
from modelgraft.engine.prepared import Prepared, prepare
from modelgraft.engine.result import Result
from modelgraft.engine.run import SERVING, Run
from modelgraft.engine.scheduler import Crew
from modelgraft.engine.streaming import Stream
from modelgraft.engine.taking import taken
from modelgraft.engine.warning import warn_once
from modelgraft.kernel.words.errors import GraphError, InputError, NodeError, PluginError
from modelgraft.kernel.words.guard import said
from modelgraft.kernel.words.plan import Plan, Step
from modelgraft.kernel.words.ports import Port
from modelgraft.records import values
from modelgraft.records.absence import ABSENT
from modelgraft.records.batch import Batch
from modelgraft.records.owning import Handed, own
from modelgraft.records.readers import for_reader
from modelgraft.records.record_type import types_of

__all__ = ["ABSENT", "Pipeline", "Result"]

CLOSE_S = 5.0  # how long closing waits for a run that is stuck in foreign code
LOOK_S = 0.005  # how often it looks
NONE: frozenset[str] = frozenset()
UNWATCHED = (NONE, False)  # nothing comes from the cache, and nobody watches

Replan = Callable[[tuple[str, ...]], Plan]  # a plan for other wanted outputs


class Pipeline:
    """A graph that can be run: nodes are loaded when a run first needs them, and stay loaded until it is closed.

    Several runs may be under way at once, each in a thread of the caller: a pipeline holds weights, a Run all else. Nodes that
    cannot be shared are taken in turns. Use it as a context manager, or close it.
    """

    def __init__(self, plan: Plan, *, replan: Replan | None = None, opening: Opening = USUAL_OPENING, cache: Cache | None = None) -> None:
        self.plan = plan
        self.opening, self._replan, self._seed = opening, replan, opening.seed
        self._cache = cache or Cache()
        has_new = any(node.source is None and node.component.module is not None for node in plan.graph.nodes.values())
        self._salt = f"weights drawn one by one from seed {opening.seed}" if opening.init == "random" or has_new else ""
        self._types = types_of(plan.graph.graph.registry)
        self._manager = plan.graph.graph.registry.manager
        self._is_watched = opening.trace or has_watchers(self._manager)
        self._loader = Loader(plan.graph, opening=opening, limits=plan.limits)
        self._crew = Crew(f"modelgraft-{plan.graph.name}")
        self._binding = Binding(plan.graph, self._loader, self._cache, self._types, opening)
        self._hooks = hearing(self._manager)  # of plugins that hear events
        self._making = threading.RLock()  # engines are made one at a time, because that loads nodes
        self._runs: set[Run] = set()  # those under way
        self._default = prepare(plan)
        self._others: dict[tuple[str, ...], Prepared] = {}
        self._warned: set[str] = set()  # what was handed to Python's warnings, or to the caller of `load`
        self._is_closed = False
        self._without_cache = 0  # how many blocks of `without_cache` are under way
        self._worded, self._hearers = for_reader(), self._loader.hearers
        self._take_in, self._known = take_in_cached if opening.offline else take_in, plan.graph.inputs
        self._is_told = opening.trace or self._hooks is not None  # of every event of every run

    # -- what a user calls ----------------------------------------------------------------------------------------------

    def run(
        self,
        /,
        *unnamed: object,
        outputs: Sequence[str] | None = None,
        seed: int | None = None,
        limit_s: float | None = None,
        **inputs: Any,
    ) -> Result:
        """Run the graph for one record, or for a batch where an input is a list.

        outputs  what is wanted: outputs of the graph, or any port as "node.port"; None: all outputs of the graph
        seed     of this run; None: that of the pipeline
        limit_s  the most seconds that this run may take once its nodes are loaded; None: as long as it likes

        Raises InputError for inputs that do not fit, SourceError or PluginError when a node cannot be loaded, NodeError
        (NodeTimeout, Cancelled) when one fails. Ctrl-C stops the nodes that run and raises Cancelled from KeyboardInterrupt.
        """
        if unnamed:
            refuse_unnamed("run", unnamed, self.plan.graph.inputs)
        if seed is None and limit_s is None and not self._is_told:  # the commonest
            return self._run(Run(self._seed, self._worded, self._hearers), outputs, inputs)
        return self._run(self._new_run(seed, limit_s=limit_s), outputs, inputs)

    def stream(
        self,
        /,
        *unnamed: object,
        outputs: Sequence[str] | None = None,
        seed: int | None = None,
        limit_s: float | None = None,
        **inputs: Any,
    ) -> Stream:
        """Run the graph in a thread and give what happens as it does; the last event is of kind `result`.

        The thread starts when the first event is asked for. Raises as `run` does, after the events that came before, the last of
        them of kind `run-failed`. Leaving the loop early, or closing the stream, stops this run and no other.

            with pipeline.stream(prompt="...") as events:
                for event in events: ...
            events.result
        """
        refuse_unnamed("stream", unnamed, self.plan.graph.inputs)
        events: SimpleQueue[Any] = SimpleQueue()  # Any: events, and the error that ends them
        run = self._new_run(seed, limit_s=limit_s, sink=events.put)
        return Stream(run, events, lambda: self._run(run, outputs, inputs))

    def map(
        self,
        records: Iterable[MappedRecord],
        *,
        batch_size: int = 8,
        outputs: Sequence[str] | None = None,
        seed: int | None = None,
        ahead: int | None = None,
    ) -> Iterator[Result]:
        """Run the graph over records, each a mapping of inputs, and give one result per record, in order, as they come.

        ahead  how many batches are under way while the next one is read, so that pictures are decoded and prepared while others are
               in the encoder; 0: one after the other, and no record is taken before the results of those of earlier batches were.
               None: 2 for a list of records, 0 for what may be made from one result to the next, and for graphs of plain functions

        A record that fails, whatever its files hold, has a result with `error`; the others of its batch are run again without it.
        An error among the records is handed through as a result, so that whoever reads them need not stop at one. A record
        starts no download.
        """
        if isinstance(records, str | bytes | Mapping):
            example = ", ".join(f"{name!r}: ..." for name in self.plan.graph.inputs)
            raise InputError(f"found {values.describe(records)}, wanted records: a list of mappings, such as [{{{example}}}]")
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; wanted: at least 1")
        under_way, prepared = UnderWay(), self._prepared(outputs)

        def run(batch: Intake) -> Result:
            with under_way.one(self._new_run(seed)) as one:
                one.is_of_map = True
                return self._run(one, outputs, batch)

        ports, count = {outlet.name: outlet.port for outlet in prepared.outlets}, ahead_for(records, prepared.plan, asked=ahead)
        known, needed = self.plan.graph.inputs, prepared.inlets
        return map_records(records, run, known=known, needed=needed, ports=ports, batch_size=batch_size, ahead=count, stop=under_way.stop)

    def load(self) -> tuple[str, ...]:
        """Load every node of the plan now, lazy ones too; gives what a user must know about the loads."""
        with self._making:
            if self._is_closed:
                raise InputError("the pipeline is closed; open the graph again")
            self._loader.refuse_misfits(self.plan.steps)
            for step in self.plan.steps:
                self._loader.load(step)
            told = self._lasting(self.plan.steps)
            self._warned |= set(told)
            return told

    def backend(self, name: str) -> Backend | None:
        """The backend of this pipeline, once it has loaded a node with it."""
        return self._loader.backend(name)

    @property
    def memory(self) -> Memory:
        """What the nodes take now on each device, and what is kept beside them: a table, planned and measured."""
        return memory_of(self._loader.ledger, self.plan.steps)

    @contextmanager
    def without_cache(self) -> Iterator[None]:
        """Within the block nothing is taken from the cache or put into it: each run computes all that it needs, as one that is timed must.

        What was kept in memory is forgotten first, and so are the conversations that language models keep for prompts that begin alike.
        """
        self._cache.clear()
        self._loader.ledger.let_go_of_spare()
        self._without_cache += 1
        try:
            yield
        finally:
            self._without_cache -= 1

    def cancel(self) -> None:
        """Stop every run that is under way, from another thread: each raises Cancelled. Does nothing when there is none.

        To stop one run alone, close its stream.
        """
        for run in tuple(self._runs):
            run.cancelled.set()

    def close(self) -> None:
        """Stop the runs that are under way, and free the nodes, their devices and the threads. Closing twice does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        self.cancel()
        self._crew.close()
        end = time.monotonic() + CLOSE_S
        while self._runs:
            if time.monotonic() > end or all(run.is_given_up for run in tuple(self._runs)):
                return  # a run is stuck in foreign code: what it holds is freed when it comes back
            time.sleep(LOOK_S)
        with self._making:
            self._loader.close()
            self._cache.clear()
            self._default.engines.clear()  # they hold the code of the nodes, and so their weights
            self._others.clear()

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

    def _new_run(self, seed: int | None, *, limit_s: float | None = None, sink: Sink | None = None) -> Run:
        if seed is not None:
            refuse_seed(seed)
        if limit_s is not None:
            refuse_limit(limit_s)
        return Run(
            self._seed if seed is None else seed,
            sink=sink,
            hooks=self._hooks,
            limit_s=limit_s,
            worded=self._worded,
            is_traced=self.opening.trace,
            hearers=self._hearers,
        )

    def _run(self, run: Run, outputs: Sequence[str] | None, inputs: Mapping[str, Any] | Intake) -> Result:
        """One run, from what a user gave to what he gets."""
        before = SERVING.set(run)
        self._runs.add(run)  # before it is asked whether the pipeline is closed: closing waits for those that it finds
        try:
            prepared = self._prepared(outputs)
            if run.is_heard:
                run.emit(RunStarted, graph=self.plan.graph.name, seed=run.seed, outputs=tuple(prepared.plan.wanted))
            if not prepared.engines:
                self._begin(prepared)
            intake = inputs if isinstance(inputs, Intake) else self._take_in(inputs, known=self._known, needed=prepared.inlets)
            run.count, run.is_single = intake.count, intake.single
            prepared.demand.refuse(run.count)
            for text in intake.said:
                run.emit(Warned, text=text)
            hits = self._look_up(prepared, intake, run) if prepared.keyed else {}
            usual = None if hits or run.is_heard or self._is_watched else prepared.engines.get(UNWATCHED)
            engine = usual or self._engine(prepared, frozenset(hits) if hits else NONE, run)
            without = self._spared(prepared, engine, hits, run) if hits else NONE
            given = _given(engine, intake, hits) if hits else [*map(intake.values.__getitem__, engine.inputs)]
            intake.values.clear()  # so that an input is freed at its last use
            try:
                found, timeline = engine.run(given, self._crew, run)
            except (GraphError, PluginError, NodeError, InputError) as error:
                self._note(error, engine, run)
                raise
            result = Result(taken(prepared.outlets, found, run), without, (), timeline)
            if run.said or self._is_told or self._loader.has_warnings:
                self._complete(result, prepared, run)
            if run.is_heard:
                run.emit(RunResult, result=result)
            if self._loader.has_warnings:  # what was left for later was said
                self._loader.left.begin()
            return result
        except BaseException as error:
            if run.is_heard:
                run.emit(RunFailed, error=error)
            raise
        finally:
            run.end()
            self._runs.discard(run)
            SERVING.reset(before)

    def _begin(self, prepared: Prepared) -> None:
        """Begin what nodes can begin before they are loaded, but where a cache in a folder may spare them."""
        if self.opening.cache_dir is None:
            with self._making:
                self._loader.begin(prepared.plan.steps)

    def _note(self, error: BaseException, engine: Engine, run: Run) -> None:
        """Keep what was ready when a node failed. Raises NodeError for what ends one record of a map."""
        if isinstance(error, GraphError | PluginError):
            if run.is_of_map:  # of a node that a record came to, not of those that every record needs
                raise NodeError(said(error), node="") from error
        elif isinstance(error, NodeError | InputError):
            ports = {str(ref): self._binding.graph.port_of(ref) for ref in engine.layout.slots}
            found = {name: (ports.get(name), value) for name, value in error.outputs.items()}
            error.outputs = Handed(found, partial(self._ready, run.count))
            run.failure = error
            if run.left:
                self._leave([job for job in engine.layout.jobs if job.name in run.left])

    def _leave(self, jobs: Iterable[Job]) -> None:
        """Let go of nodes that are stuck in foreign code: the next run loads them anew."""
        with self._making:
            for job in jobs:
                self._loader.forget([job.step.node])
                self._binding.turns.lose(job)
            for prepared in (self._default, *self._others.values()):
                prepared.engines.clear()

    @staticmethod
    def _ready(count: int, found: tuple[Port | None, Any]) -> Any:
        """What was ready when a node failed: as it is in a run, a batch with ABSENT for what was left out."""
        value = in_tensors_at(*found)
        return own(value.listed(count) if isinstance(value, Batch) else value)

    def _look_up(self, prepared: Prepared, intake: Intake, run: Run) -> dict[str, Outputs]:
        if self._without_cache or not self._cache.is_on:
            return {}
        run.keys = prepared.keys(intake.values, run.seed, salt=self._salt, count=run.count)
        hits = prepared.hits(self._cache, run.keys, lambda name, text: run.emit(Warned, name, text=text))
        for name in sorted(hits) if run.is_heard else ():
            run.emit(NodeCached, name)
        return hits

    def _spared(self, prepared: Prepared, engine: Engine, hits: Mapping[str, Outputs], run: Run) -> frozenset[str]:
        """The nodes that the cache spared: those that it holds, and those that only they need."""
        found = spared(prepared.plan, engine.layout)
        if run.is_heard:
            held = {part.name for name in hits for part in (prepared.plan.nodes[name].node.parts or (prepared.plan.nodes[name].node,))}
            for name in sorted(found - held):
                run.emit(NodeSkipped, name, reason="the cache holds what follows from it")
        return found

    def _complete(self, result: Result, prepared: Prepared, run: Run) -> None:
        """Add what was told meanwhile to a result: events of a trace, warnings of the run and of what was loaded."""
        if self.opening.trace:
            result.timeline = replace(result.timeline, events=tuple(run.kept))
        lasting = self._lasting(prepared.plan.steps)
        if not run.is_streamed:  # who streams has heard them as events
            warn_once(lasting, warned=self._warned)
        result.warnings = (*lasting, *run.said)

    def _lasting(self, steps: Iterable[Step]) -> tuple[str, ...]:
        """What loads have told of these steps, worded for whoever opened the pipeline."""
        return tuple(map(self._worded, self._loader.warnings(steps)))

    # -- engines --------------------------------------------------------------------------------------------------------

    def _engine(self, prepared: Prepared, hits: frozenset[str], run: Run) -> Engine:
        """What runs a plan when these nodes come from the cache; made when it is first needed, which loads what is not lazy."""
        is_observed = self._is_watched or run.is_heard
        found = prepared.engines.get((hits, is_observed))
        if found is not None:
            return found
        with self._making:
            if self._is_closed:
                raise InputError("the pipeline is closed; open the graph again")
            return prepared.engine(
                hits, is_observed=is_observed, make=partial(self._binding.engine, wanted=prepared.plan.wanted, is_observed=is_observed)
            )


def _given(engine: Engine, intake: Intake, hits: Mapping[str, Outputs]) -> list[Any]:
    """What an engine starts with where some of it comes from the cache."""
    return [intake.values[ref.port] if ref.is_input else hits[ref.node].get(ref.port) for ref in engine.layout.given]
