"""From a node to what a run calls: its code, and around it, layer by layer, only what this node needs.

    keep in the cache( look at what it gave | run it for its records( look for NaN once( numbers in its form( no writing to arguments(
        join lists( code ))))))

and, where somebody watches, hooks and events around all of it. The layers are chosen when a plan is made ready, so that a run
pays for no other. What they need of the run they ask for (`run.current`), because several may be under way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import Any

from modelgraft.engine.asking import listed as listed_port
from modelgraft.engine.backend import Call
from modelgraft.engine.cache import Cache
from modelgraft.engine.calls import check_of, checked, gives_masks, is_constant, listed
from modelgraft.engine.engine import Engine
from modelgraft.engine.events import Warned
from modelgraft.engine.finite_values import gives_floats, looked_at_once
from modelgraft.engine.forms import in_form, in_tensors_at, is_fed_arrays, is_tensor_to_be
from modelgraft.engine.inplace import Habits, apart
from modelgraft.engine.layout import Job, Layout
from modelgraft.engine.left_out import is_marked
from modelgraft.engine.loading import Loader
from modelgraft.engine.observers import by_port, observed
from modelgraft.engine.opening import Opening
from modelgraft.engine.outputs import Lying
from modelgraft.engine.routing import Fails, asked_nodes, is_asked, routed, routed_nodes
from modelgraft.engine.run import Run, current, tell
from modelgraft.engine.turns import Turn, Turns
from modelgraft.kernel.words.graph import Node, Ref, SolvedGraph, Value
from modelgraft.kernel.words.order import reach
from modelgraft.kernel.words.ports import Port
from modelgraft.records import values
from modelgraft.records.batch import Batch, is_whole
from modelgraft.records.digests import size_bytes
from modelgraft.records.owning import own
from modelgraft.records.record_type import Types


@dataclass(slots=True)
class Binding:
    """What all calls of a pipeline share."""

    graph: SolvedGraph
    loader: Loader
    cache: Cache
    types: Types
    opening: Opening
    habits: Habits = field(default_factory=Habits)
    turns: Turns = field(default_factory=Turns)
    marking: Lock = field(default_factory=Lock)  # nodes of one run may fail side by side
    looked_at: set[str] = field(default_factory=set)  # the nodes whose results were looked at for NaN

    def engine(self, layout: Layout, *, wanted: Mapping[str, Ref], is_observed: bool) -> Engine:
        """What runs a layout. Loads the nodes that are not lazy.

        wanted       the outputs by name;  is_observed  somebody hears of what the nodes do

        Raises SourceError, PluginError or InputError when one cannot be loaded.
        """
        after_route, asked, runtime = routed_nodes(layout.jobs, self.graph), asked_nodes(self.graph), self.graph.graph.runtime

        def bind(job: Job, is_checked: bool) -> Call:  # noqa: FBT001 called by the engine only
            call = self.call(job, is_checked=is_checked, is_routed=job.name in after_route, is_asked=is_asked(job.step.node, asked))
            if not is_observed:
                return call
            given = {ref.port: name for name, ref in wanted.items() if ref.node == job.name}
            return self.watched(call, job, given, is_asked=is_asked(job.step.node, asked))

        steps = [job.step for job in layout.jobs]
        self.loader.require(step.node for step in steps if not step.node.lazy)
        self.loader.refuse_misfits(steps)
        for step in steps:
            if self.loader.stays(step.node):
                self.loader.load(step)
        limits = [limit_of(job.step.node, runtime, opened=self.opening.timeout_s) for job in layout.jobs]
        return Engine(layout, bind=bind, limits=limits, timings=self.opening.timings, spent=self.habits.spent, turn=self.turn)

    def call(self, job: Job, *, is_checked: bool, is_routed: bool, is_asked: bool = False) -> Call:
        """What runs a job.

        is_checked  its calls are long enough to be looked at every time;  is_routed  a route decides which records come to it
        is_asked    a record may come to it several times
        """
        node, loader = job.step.node, self.loader
        tell_odd = partial(self._tell_odd, job)
        loaded = loader.load(job.step) if loader.stays(node) else None
        call = listed(self._when_needed(job) if loaded is None else loaded.call_for(node), node)
        call = apart(call, node, habits=self.habits, is_watched=is_checked, is_strict=self.opening.debug, tell=tell_odd)
        if node.component.arrays is True or (loaded is not None and not loaded.arrays and is_fed_arrays(node, self.graph.nodes)):
            call = in_form(call, node)
        if node.name not in self.looked_at and gives_floats(node):
            call = looked_at_once(call, node, seen=self.looked_at, state=lambda: loader.state(job.step), tell=tell_odd)
        if is_routed:
            fails = Fails(partial(self._mark, job), _is_stopped) if is_marked(node, self.graph) else None
            call = routed(call, node, count=_count, check=check_of(node, self.types), is_asked=is_asked, fails=fails)
        elif is_checked or gives_masks(node) or is_constant(node):
            call = checked(call, node, count=_count, is_stopped=_is_stopped, types=self.types)
        if job.step.key and node.component.cache and self.cache.is_on:
            call = self._keeping(call, job)
        return call

    def watched(self, call: Call, job: Job, wanted: Mapping[str, str], *, is_asked: bool = False) -> Call:
        """The same with hooks and events around it.

        wanted  the outputs of the graph that this node gives: name by port;  is_asked  a record may come to it several times
        """
        show = partial(_show, is_asked)
        measure = _measure if self.opening.trace else None
        return observed(call, job, manager=self.graph.graph.registry.manager, emit=tell, wanted=wanted, show=show, measure=measure)

    def turn(self, job: Job) -> Turn | None:
        """Where runs wait that need this job at the same time; None: nowhere."""
        node = job.step.node
        return self.turns.of(job, is_shared=self.loader.stays(node) and self.loader.load(job.step).is_shared)

    def _when_needed(self, job: Job) -> Call:
        return lambda *arguments: self.loader.call(job.step, arguments)

    def _keeping(self, call: Call, job: Job) -> Call:
        def run(*arguments: Any) -> Any:
            result: Any = call(*arguments)
            served = current()
            key = served.keys.get(job.name)
            if key is not None and not served.failed and not self._stands_in(job):  # what follows from a failure is no result to keep
                self.cache.put(key, by_port(job.step.node, result))
            return result

        return run

    def _stands_in(self, job: Job) -> bool:
        """Whether a job, or one that it follows from, answers in another way than its key says."""
        standing = self.loader.left.standing
        if not standing:
            return False
        nodes = {**self.graph.nodes, job.name: job.step.node}
        return not standing.isdisjoint(reach([job.name], lambda name: nodes[name].feeders if name in nodes else ()))

    def _mark(self, job: Job, failure: str, times: int) -> None:
        """Note that a node has failed in a run that goes on, and tell of it."""
        with self.marking:
            current().failed |= {job.name}
        often = "" if times == 1 else f" {times} times"
        text = "; ".join(line.strip() for line in failure.removeprefix(f"{job.name}: ").splitlines())
        tell(Warned, job.name, text=f"failed{often}, and the run goes on without what it would have given: {text}")

    def _tell_odd(self, job: Job, text: str, is_lasting: bool) -> None:  # noqa: FBT001 as finite.Tell
        if is_lasting:
            self.loader.warn(job.step, f"{job.step.node.name}: {text}")
        else:
            tell(Warned, job.step.node.name, text=text)


def limit_of(node: Node, runtime: Mapping[str, Value], *, opened: float | None) -> float | None:
    """The most seconds a node may take: what the pipeline was opened with, else its own, else that of the graph; None: as long as it likes.

    runtime  of the whole graph

    One that stands for several may take what they may together.
    """
    limits = [limit_of(part, runtime, opened=opened) for part in node.parts]
    if limits:
        return None if None in limits else sum(limit for limit in limits if limit is not None)
    written = runtime.get("timeout_s")
    whole = written.value if written is not None else None
    by_node: Mapping[str, Any] = whole if isinstance(whole, Mapping) else {"default": whole}
    asked = (opened, node.runtime.get("timeout_s"), by_node.get(node.name), by_node.get("default"))
    return next((float(limit) for limit in asked if limit is not None), None)


def show(run: Run, port: Port, value: Any) -> Any:
    """What the user gets for an output: of one record the record, of a batch the list, ABSENT for what was left out, of a branch that a
    record asks several times the list of what it has.

    An array of a tensor's port is a tensor once it is read (`Lying`). In memory of its own: what the cache, other outputs, the inputs or a
    module hold is not written to by who gets it.
    """
    if value is None or isinstance(value, Batch):
        batch = Batch.of(in_tensors_at(port, value))
        listed = own(batch.gathered(range(run.count)) if port.several else batch.listed(run.count))
        return listed[0] if run.is_single else listed
    if is_tensor_to_be(port, value):
        return Lying(value.copy())
    return own(values.present(port, in_tensors_at(port, value), single=run.is_single))


def _show(is_asked: bool, port: Port, value: Any) -> Any:  # noqa: FBT001 bound by position
    return show(current(), listed_port(port) if port.several or (is_asked and not is_whole(port.type)) else port, value)


def _measure(_name: str, outputs: Mapping[str, Any]) -> int | None:
    return size_bytes(dict(outputs))


def _count() -> int:
    return current().count


def _is_stopped() -> bool:
    return current().cancelled.is_set()
