"""Nodes as they are loaded: each when a run first needs it, by the backend that its plan names."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from modelgraft.engine.backend import Backend, LoadContext, Loaded, bound_function, open_backend
from modelgraft.engine.events import NodeLoaded, NodeLoading, Progress, Warned
from modelgraft.engine.ledger import Ledger
from modelgraft.engine.observers import call_watchers
from modelgraft.engine.opening import Opening
from modelgraft.engine.run import NodeRuntime, tell
from modelgraft.kernel.words.errors import ModelgraftError, PluginError, Problem, SourceError, raise_if_any
from modelgraft.kernel.words.graph import Node, SolvedGraph
from modelgraft.kernel.words.guard import contained, said
from modelgraft.kernel.words.kinds import defect_of
from modelgraft.kernel.words.plans import Step
from modelgraft.sources import kept
from modelgraft.sources.progress import heard_by


class Loader:
    """The loaded nodes of a pipeline and their backends. What it has to tell goes to the run that loads."""

    def __init__(self, graph: SolvedGraph, *, opening: Opening) -> None:
        self.opening, self._graph = opening, graph
        self._registry = graph.graph.registry
        self.ledger = Ledger()
        self._lock = threading.RLock()  # lazy nodes are loaded by the threads that run them
        self._backends: dict[str, Backend] = {}
        self._loaded: dict[str, Loaded] = {}
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

    def load(self, step: Step) -> Loaded:
        """Give a node that is ready to run; load it, and the node whose weights it shares, when it is not yet.

        Raises SourceError, PluginError or InputError as the backend does.
        """
        place = _place_of(step.node)
        found = self._loaded.get(place)  # without waiting for what other runs load
        if found is not None:
            return found
        with self._lock:
            return self._loaded.get(place) or self._load(step.node, step)

    def loaded(self) -> Mapping[str, Loaded]:
        """The nodes that are loaded, by name."""
        return self._loaded

    def backend(self, name: str) -> Backend | None:
        """A backend that has loaded a node, or None."""
        return self._backends.get(name)

    def warnings(self, steps: Iterable[Step]) -> tuple[str, ...]:
        """What a user must know about the loads of these steps."""
        places = [_place_of(step.node) for step in steps]
        return tuple(text for place in places if place in self._loaded for text in self._loaded[place].warnings)

    def warn(self, step: Step, text: str) -> None:
        """Note what a user must know of a loaded node in every run, found while it ran."""
        with self._lock:
            place = _place_of(step.node)
            if place in self._loaded:
                self._loaded[place] = replace(self._loaded[place], warnings=(*self._loaded[place].warnings, text))
                self.has_warnings = True
        tell(Warned, step.node.name, text=text, lasting=True)

    def forget(self, nodes: Iterable[Node]) -> None:
        """Drop nodes that are stuck in a run that was given up: the next run loads them anew."""
        with self._lock:
            for node in nodes:
                self._loaded.pop(_place_of(node), None)

    def close(self) -> None:
        """Free every node and every backend."""
        with self._lock:
            failed = [_close(f"node '{place}'", loaded.close) for place, loaded in self._loaded.items()]
            self._loaded.clear()
            failed += [_close(f"the backend '{name}'", backend.close) for name, backend in self._backends.items()]
            self._backends.clear()
        for text in filter(None, failed):
            warnings.warn(text, RuntimeWarning, stacklevel=2)

    def _load(self, node: Node, step: Step) -> Loaded:
        if node.share is not None and node.share not in self._loaded:
            self._load(self._graph.nodes[node.share], step)
        tell(NodeLoading, node.name)
        start = time.perf_counter()
        with heard_by(partial(_tell_progress, node.name)), kept.loading() as found:
            loaded = _with_remarks(self._opened(node, step), node)
        if found:
            loaded = replace(loaded, warnings=(*loaded.warnings, *(f"{node.name}: {text}" for text in found)))
        seconds = time.perf_counter() - start
        self._loaded[_place_of(node)] = loaded
        watched = {"node": node.name, "component": node.component.id, "seconds": seconds}
        call_watchers(self._registry.manager, "on_node_load", warn=lambda text: tell(Warned, node.name, text=text), **watched)
        tell(NodeLoaded, node.name, seconds=seconds)
        for text in loaded.warnings:
            self.has_warnings = True
            tell(Warned, node.name, text=text, lasting=True)
        return loaded

    def _opened(self, node: Node, step: Step) -> Loaded:
        """Open a node and bind it to its runtime. Whatever code of a plugin raises meanwhile is a PluginError that names it."""
        try:
            with contained():
                loaded = self._open(node, step)
                if loaded.bind is not None:
                    loaded.bind(NodeRuntime(node.name, node.component.id, seed=self.opening.seed))
        except ModelgraftError:
            raise
        except Exception as error:  # code of a plugin may raise anything while it loads
            component = node.component
            found = f"plugin '{component.plugin}': {component.id} could not be loaded for node '{node.name}': {said(error)}"
            raise PluginError(f"{found}\n    {defect_of(component, error)}") from error
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
            self.opening.fallback,
            of=partial(self._context, step=step) if node.parts else None,
            ledger=self.ledger,
        )

    def _weights(self, node: Node) -> Any:
        """The weights of a node's source; None when it has none and needs none, or when a loaded module holds them."""
        if node.share is not None:
            return self._weights(self._graph.nodes[node.share]) if self._loaded[node.share].state is None else None
        if node.source is None or node.component.function is not None:
            return None
        if self.opening.init == "random" and not node.source.has_weights:
            return None
        from modelgraft.sources import weights  # brings torch

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


def _tell_progress(node: str, done: int, total: int | None, label: str) -> None:
    tell(Progress, node, done=done, total=total, label=label)


def _with_remarks(loaded: Loaded, node: Node) -> Loaded:
    """The warnings that the checks have for the node, before those of its load."""
    remarks = [remark for part in (node, *node.parts) for remark in part.remarks]
    return replace(loaded, warnings=(*map(_in_a_line, remarks), *loaded.warnings)) if remarks else loaded


def _in_a_line(remark: Problem) -> str:
    where = f" ({remark.place.short})" if remark.place else ""
    return f"{remark.found}{where}{f'; {remark.hint}' if remark.hint else ''}"


def _close(what: str, close: Callable[[], None]) -> str:
    """Close something; gives "" or what it raised, so that what stands behind it is closed as well."""
    try:
        with contained():
            close()
    except Exception as error:  # noqa: BLE001 code of a plugin may raise anything while it closes
        return f"{what} could not be closed: {said(error)}"
    return ""


def _place_of(node: Node) -> str:
    """Where a loaded node is kept. One that stands for several may give other outputs in the plan of another request."""
    return f"{node.name} -> {', '.join(node.out_ports)}" if node.parts else node.name
