"""Nodes as they are loaded: each when a run first needs it, by the backend that its plan names."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from modelgraft.engine.backend import Backend, Call, LoadContext, Loaded, bound_function, open_backend
from modelgraft.engine.beginning import begin
from modelgraft.engine.events import NodeLoaded, NodeLoading, NodeReleased, Progress, Sink, Warned
from modelgraft.engine.forms import in_form
from modelgraft.engine.freeing import close, give_back, marks_of
from modelgraft.engine.lacking_at import lacking_at
from modelgraft.engine.leaving import Leaving
from modelgraft.engine.ledger import Block, Holding, Ledger
from modelgraft.engine.measuring import blocks_of, metered
from modelgraft.engine.needs import Need, forecasts_of, keeps, misfits, stays
from modelgraft.engine.observers import call_watchers
from modelgraft.engine.opening import Opening
from modelgraft.engine.run import SERVING, NodeRuntime, tell
from modelgraft.kernel.shelf.registry import Registry
from modelgraft.kernel.words.errors import Cancelled, ModelgraftError, PluginError, Problem, SourceError, choices, raise_if_any
from modelgraft.kernel.words.graph import Node, SolvedGraph
from modelgraft.kernel.words.guard import contained, said
from modelgraft.kernel.words.kinds import defect_of
from modelgraft.kernel.words.plan import Step
from modelgraft.records.homes import refuse_lost_folder
from modelgraft.sources import kept
from modelgraft.sources.progress import heard_by


class Loader:
    """The loaded nodes of a pipeline and their backends. What it has to tell goes to the run that loads.

    ledger  what the nodes take, and who goes when another needs room
    left    what was left for later of their loads
    """

    def __init__(self, graph: SolvedGraph, *, opening: Opening, limits: Mapping[str, int], is_aside: bool = False) -> None:
        """is_aside: this process does what others have left for later."""
        self.left = Leaving(graph, opening=opening, is_aside=is_aside)
        self.opening, self._graph, self.ledger = opening, graph, Ledger(limits)
        self._registry = graph.graph.registry
        self._loading = threading.RLock()  # one load at a time: held while a load waits for room, so nothing that runs may want it
        self._lock = threading.RLock()  # of what is loaded, never held for long
        self._backends: dict[str, Backend] = {}
        self._loaded: dict[str, Loaded] = {}
        self._held: dict[str, Holding] = {}  # what each of them takes
        self._hearers: Mapping[str, Sink] = {}  # by node, what hears the others
        self._told: dict[str, tuple[str, ...]] = {}  # what must be known of each load, also when it was let go of
        self.has_warnings = False

    def require(self, nodes: Iterable[Node]) -> None:
        """Raise SourceError for every one of these nodes whose source has no weights and will get none: before any is loaded."""
        from modelgraft.kernel.words.source import NO_WEIGHTS_HINT

        if self.opening.init == "random":
            return
        parts = [part for node in nodes for part in (node.parts or (node,)) if node.name not in self._loaded]
        found = [
            Problem("no-weights", f"{name}: {why}", node.place, NO_WEIGHTS_HINT, node=node.name)
            for node in parts
            for name, source, _ in node.opened_sources()
            if (why := source.lacks_weights(offline=self.opening.offline))
        ]
        raise_if_any(found, SourceError)

    def refuse_misfits(self, steps: Sequence[Step]) -> None:
        """Raise GraphError `does-not-fit` for each device that may not hold what these steps need there at once: before any is loaded."""
        if not self.ledger.limits:
            return
        runtime, own = self._graph.graph.runtime, {step.node.share or step.node.name for step in steps}
        staying = [held for held in self.ledger.holdings() if held.let_go is None and held.what not in own]
        others = [
            (device, Need(held.what, held.on(device), stays=True)) for held in staying for device in {place for place, _ in held.blocks}
        ]
        raise_if_any(misfits(forecasts_of(steps, runtime, self.ledger.limits, others=others)))

    def begin(self, steps: Sequence[Step]) -> None:
        """Begin with what the loads of these steps can begin with before torch is there, unless they have to wait for room."""
        if not self.ledger.limits:
            begin([step for step in steps if self.stays(step.node) and self._there(_place_of(step.node)) is None], self._backend)

    def stays(self, node: Node) -> bool:
        """Whether a node is loaded before a run begins and never let go of."""
        return stays(node, self._graph.graph.runtime)

    def load(self, step: Step) -> Loaded:
        """Give a node that is ready to run; load it, and the node whose weights it shares, when it is not yet.

        Raises SourceError, PluginError or InputError as the backend does.
        """
        place = _place_of(step.node)
        found = self._there(place)  # without waiting for what other runs load
        if found is not None:
            return found
        refuse_lost_folder()
        with self._loading:
            return self._there(place) or self._load(step.node, step)

    def call(self, step: Step, arguments: Sequence[Any]) -> Any:  # Any: whatever the ports carry
        """Call a node that may be let go of: it stays for as long as the call takes."""
        loaded, held = self._taken(step)
        try:
            return _ready(loaded, step.node)(*arguments)  # under no name: letting go of it would not free it
        finally:
            del loaded  # for the same reason
            if held is not None:
                held.give_back()
                if not keeps(step.node, self._graph.graph.runtime) and held.leave():
                    self._let_go(step.node, "keep: false")

    def state(self, step: Step) -> Any:
        """The torch module of a node that is loaded, or None."""
        found = self._there(_place_of(step.node))
        return found.state if found is not None else None

    def _taken(self, step: Step) -> tuple[Loaded, Holding | None]:
        while True:
            loaded = self.load(step)
            held = self._held.get(_place_of(step.node))
            if held is None or held.take():
                return loaded, held

    def _there(self, place: str) -> Loaded | None:
        """A node that is loaded, and that nobody is letting go of."""
        with self._lock:
            held = self._held.get(place)
            return None if held is not None and held.is_gone else self._loaded.get(place)

    def _let_go(self, node: Node, why: str) -> None:
        """Free a node that the ledger has let go of."""
        place = _place_of(node)
        with self._lock:
            held = self._held.get(place)
            if held is None or not held.is_gone:
                return  # another load has freed it, and the place is taken anew
            del self._held[place]
            loaded = self._loaded.pop(place)
        failed = close(f"node '{place}'", loaded.close)
        marks, size = marks_of(loaded), sum(held.blocks.values())
        del loaded
        give_back(held.device, size, marks)
        tell(NodeReleased, node.name, reason=why, bytes=size)
        if failed:
            tell(Warned, node.name, text=failed)

    def loaded(self) -> Mapping[str, Loaded]:
        """The nodes that are loaded, by name."""
        return self._loaded

    def hearers(self) -> tuple[Sink, ...]:
        """Those of them that listen to what others tell."""
        return tuple(hear for name, hear in self._hearers.items() if name in self._loaded) if self._hearers else ()

    def backend(self, name: str) -> Backend | None:
        """A backend that has loaded a node, or None."""
        return self._backends.get(name)

    def warnings(self, steps: Iterable[Step]) -> tuple[str, ...]:
        """What a user must know about the loads of these steps."""
        told = (self.left.now(text) for step in steps for text in self._told.get(_place_of(step.node), ()))
        return tuple(filter(None, told))

    def warn(self, step: Step, text: str) -> None:
        """Note what a user must know of a loaded node in every run, found while it ran."""
        with self._lock:
            place = _place_of(step.node)
            self._told[place] = (*self._told.get(place, ()), text)
            self.has_warnings = True
        tell(Warned, step.node.name, text=text, lasting=True)

    def forget(self, nodes: Iterable[Node]) -> None:
        """Drop nodes that are stuck in a run that was given up: the next run loads them anew."""
        with self._lock:
            for node in nodes:
                place = _place_of(node)
                self._loaded.pop(place, None)
                self._told.pop(place, None)
                if (held := self._held.pop(place, None)) is not None:
                    held.release()

    def close(self) -> None:
        """Free every node and every backend."""
        with self._loading, self._lock:
            failed = [close(f"node '{place}'", loaded.close) for place, loaded in self._loaded.items()]
            self._loaded.clear()
            for held in self._held.values():
                held.release()
            self._held.clear()
            failed += [close(f"the backend '{name}'", backend.close) for name, backend in self._backends.items()]
            self._backends.clear()
        for text in filter(None, failed):
            warnings.warn(text, RuntimeWarning, stacklevel=2)

    def _load(self, node: Node, step: Step) -> Loaded:
        """Load a node, and the one whose weights it shares, which stays there meanwhile."""
        host = self._host_of(node, step)
        try:
            return self._load_alone(node, step)
        finally:
            if host is not None:
                host.give_back()

    def _host_of(self, node: Node, step: Step) -> Holding | None:
        while node.share is not None:
            if self._there(node.share) is None:
                self._load(self._graph.nodes[node.share], step)
            held = self._held.get(node.share)
            if held is None or held.take():
                return held
        return None

    def _load_alone(self, node: Node, step: Step) -> Loaded:
        held = self._room_for(node, step)
        tell(NodeLoading, node.name)
        start = time.perf_counter()
        try:
            with lacking_at(node), heard_by(partial(_tell_progress, node.name)), kept.loading() as found, metered() as noted:
                loaded = self.left.take(_with_remarks(self._opened(node, step), node), node, step, self._opened_anew)
        except BaseException:
            if held is not None:
                held.release()
            raise
        if found:
            loaded = replace(loaded, warnings=(*loaded.warnings, *(f"{node.name}: {text}" for text in found)))
        if unheeded := _unheeded(step, self._registry):
            loaded = replace(loaded, warnings=(*loaded.warnings, unheeded))
        seconds = time.perf_counter() - start
        self._keep(node, loaded, held, {**blocks_of(loaded), **noted})
        watched = {"node": node.name, "component": node.component.id, "seconds": seconds}
        call_watchers(self._registry.manager, "on_node_load", warn=lambda text: tell(Warned, node.name, text=text), **watched)
        tell(NodeLoaded, node.name, seconds=seconds, bytes=None if held is None else sum(held.blocks.values()))
        self._tell_warnings(node, loaded.warnings)
        return loaded

    def _room_for(self, node: Node, step: Step) -> Holding | None:
        """Make room for a node: its planned bytes, which nobody lets go of while it is loaded. None for plain functions."""
        if node.component.function is not None and not node.adapters:
            return None
        host = self._there(node.share) if node.share is not None and not node.adapters else None
        is_shared = host is not None and host.state is not None
        planned = 0 if is_shared or step.bytes is None else step.bytes
        let_go = None if self.stays(node) else partial(self._let_go, node, "another needs its room")
        held = self.ledger.hold(node.name, planned, step.device, let_go, check=_check_run)
        held.take()
        held.planned = None if step.bytes is None else planned
        return held

    def _keep(self, node: Node, loaded: Loaded, held: Holding | None, blocks: Mapping[Block, int]) -> None:
        """Put a loaded node into its place, with what it measures."""
        place, over = _place_of(node), ""
        with self._lock:
            self._loaded[place] = loaded
            if held is None:
                return
            self._held[place] = held
            if blocks:
                held.measured(blocks)
        over = self.ledger.settle(held) if blocks else ""
        held.give_back()
        if over:
            tell(Warned, node.name, text=over)

    def _tell_warnings(self, node: Node, texts: tuple[str, ...]) -> None:
        """Tell what must be known of a load, once: a node that was let go of is loaded again."""
        place = _place_of(node)
        before = self._told.get(place, ())
        new = tuple(text for text in texts if text not in before)
        with self._lock:
            self._told[place] = (*before, *new)
        for text in new:
            self.has_warnings = True
            tell(Warned, node.name, text=text, lasting=True)

    def _opened(self, node: Node, step: Step) -> Loaded:
        """Open a node and bind it to its runtime. What code of a plugin raises meanwhile is a PluginError that names it."""
        try:
            with contained():
                loaded = self._open(node, step)
                if loaded.bind is not None:
                    runtime = NodeRuntime(node.name, node.component.id, seed=self.opening.seed)
                    loaded.bind(runtime)
                    if runtime.hearer is not None:
                        self._hearers = {**self._hearers, node.name: runtime.hearer}
        except ModelgraftError:
            raise
        except Exception as error:  # code of a plugin may raise anything while it loads
            component = node.component
            found = f"plugin '{component.plugin}': {component.id} could not be loaded for node '{node.name}': {said(error)}"
            raise PluginError(f"{found}\n    {defect_of(component, error)}") from error
        return loaded

    def _opened_anew(self, node: Node, step: Step) -> Loaded | None:
        """Open a node that is loaded already, to take its own place; None where the two have no room beside each other."""
        if self.ledger.limit(step.device) is not None:
            return None
        with self._loading, kept.loading() as found, metered() as noted:
            loaded = self._opened(node, step)
        held = self._held.get(_place_of(node))
        if held is not None and (blocks := {**blocks_of(loaded), **noted}):
            held.measured(blocks)
        self._tell_warnings(node, (*loaded.warnings, *(f"{node.name}: {text}" for text in found)))
        return loaded

    def _open(self, node: Node, step: Step) -> Loaded:
        if node.component.function is not None and not node.adapters:
            return Loaded(bound_function(node.component.function, node))
        return self._backend(step.backend).load(self._context(node, step), self._loaded)

    def _context(self, node: Node, step: Step) -> LoadContext:
        return LoadContext(
            node,
            step.device,
            step.dtype,
            self._weights(node),
            self.opening.seed,
            self.opening.offline,
            self._registry,
            self.opening.init,
            step.precision,
            step.threads,
            self.left.fallback(node),
            of=partial(self._context, step=step) if node.parts else None,
            ledger=self.ledger,
            graph=self._graph,
            export=self.left.export(node),
        )

    def _weights(self, node: Node) -> Any:
        """The weights of a node's source; None when it has none and needs none, or when a loaded module holds them."""
        if node.share is not None:
            return self._weights(self._graph.nodes[node.share]) if self._loaded[node.share].state is None else None
        if node.source is None or node.component.function is not None:
            return None
        if self.opening.init == "random" and not node.source.has_weights:
            return None
        from modelgraft.sources import weights

        try:
            return weights.open(node.source, offline=self.opening.offline)
        except SourceError as error:
            if node.component.load is not None and [problem.code for problem in error.noted] == ["no-weights"]:
                return None  # code such as a tokenizer reads its files by itself
            raise

    def _backend(self, name: str) -> Backend:
        if name not in self._backends:
            self._backends[name] = open_backend(self._registry, name)
        return self._backends[name]


def _ready(loaded: Loaded, node: Node) -> Call:
    """The call of a node, with its numbers in the form that it takes; for code that says arrays=True its pipeline has brought them over."""
    call = loaded.call_for(node)
    return call if loaded.arrays or node.component.arrays else in_form(call, node, is_joined=True)


def _check_run() -> None:
    """Raise Cancelled when the run that waits was stopped."""
    run = SERVING.get()
    if run is not None and run.cancelled.is_set():
        raise Cancelled("stopped while a node waited for room", node="")


def _tell_progress(node: str, done: int, total: int | None, label: str) -> None:
    tell(Progress, node, done=done, total=total, label=label)


def _with_remarks(loaded: Loaded, node: Node) -> Loaded:
    """The warnings that the checks have for the node, before those of its load."""
    remarks = [remark for part in (node, *node.parts) for remark in part.remarks]
    return replace(loaded, warnings=(*map(_in_a_line, remarks), *loaded.warnings)) if remarks else loaded


def _unheeded(step: Step, registry: Registry) -> str:
    """What a step is asked for and its backend does not obey; "" when there is nothing."""
    card = registry.backends.get(step.backend)
    if step.threads is None or step.node.component.module is None or card is None or "threads" in card.heeds:
        return ""
    others = [name for name, other in registry.backends.items() if "threads" in other.heeds]
    found = f"{step.node.name}: `threads` is not for the {step.backend} backend, which gives no node threads of its own"
    return f"{found}; it is for: {choices(others)}" if others else found


def _in_a_line(remark: Problem) -> str:
    where = f" ({remark.place.short})" if remark.place else ""
    return f"{remark.found}{where}{f'; {remark.hint}' if remark.hint else ''}"


def _place_of(node: Node) -> str:
    """Where a loaded node is kept. One that stands for several may give other outputs in the plan of another request."""
    return f"{node.name} -> {', '.join(node.out_ports)}" if node.parts else node.name
