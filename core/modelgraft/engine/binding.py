"""From a node to what a run calls: its code, and around it, layer by layer, only what this node needs.

    keep in the cache( look at what it gave | run it for its records( look for NaN once( no writing to arguments( join lists( code )))))

and, where somebody watches, hooks and events around all of it. The layers are chosen when a plan is made ready, so that a run
pays for no other. What they need of the run they ask for (`run.current`), because several may be under way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pluggy

from modelgraft.engine.cache import Cache
from modelgraft.engine.calls import Call, check_of, checked, gives_masks, is_constant, listed
from modelgraft.engine.events import Warned
from modelgraft.engine.finite import gives_floats, looked_at_once
from modelgraft.engine.inplace import Habits, apart
from modelgraft.engine.layout import Job
from modelgraft.engine.loading import Loader
from modelgraft.engine.observers import by_port, observed
from modelgraft.engine.routing import Partial, records_of, routed
from modelgraft.engine.run import Run, current, tell
from modelgraft.engine.turns import Turn, Turns
from modelgraft.kernel.words.ports import Port
from modelgraft.records import values
from modelgraft.records.digests import size_bytes
from modelgraft.records.owning import own
from modelgraft.records.record_type import Types


@dataclass(slots=True)
class Binding:
    """What all calls of a pipeline share.

    is_strict  every call is looked at as the first is;  is_traced  the outputs of each node are measured
    """

    loader: Loader
    cache: Cache
    manager: pluggy.PluginManager
    types: Types
    is_strict: bool
    is_traced: bool
    habits: Habits = field(default_factory=Habits)
    turns: Turns = field(default_factory=Turns)
    looked_at: set[str] = field(default_factory=set)  # the nodes whose results were looked at for NaN

    def call(self, job: Job, *, is_checked: bool, is_routed: bool) -> Call:
        """What runs a job.

        is_checked  its calls are long enough to be looked at every time;  is_routed  a route decides which records come to it
        """
        node, loader = job.step.node, self.loader
        tell_odd = partial(self._tell_odd, job)
        call = listed(loader.load(job.step).call if loader.stays(node) else self._when_needed(job), node)
        call = apart(call, node, habits=self.habits, is_watched=is_checked, is_strict=self.is_strict, tell=tell_odd)
        if node.name not in self.looked_at and gives_floats(node):
            call = looked_at_once(call, node, seen=self.looked_at, state=lambda: loader.state(job.step), tell=tell_odd)
        if is_routed:
            call = routed(call, node, count=_count, check=check_of(node, self.types))
        elif is_checked or gives_masks(node) or is_constant(node):
            call = checked(call, node, count=_count, is_stopped=_is_stopped, types=self.types)
        if job.step.key and node.component.cache and self.cache.is_on:
            call = self._keeping(call, job)
        return call

    def watched(self, call: Call, job: Job, wanted: Mapping[str, str]) -> Call:
        """The same with hooks and events around it.

        wanted  the outputs of the graph that this node gives: name by port
        """
        measure = _measure if self.is_traced else None
        return observed(call, job, manager=self.manager, emit=tell, wanted=wanted, show=_show, measure=measure)

    def turn(self, job: Job) -> Turn | None:
        """Where runs wait that need this job at the same time; None: nowhere."""
        node = job.step.node
        return self.turns.of(job, is_shared=self.loader.stays(node) and self.loader.load(job.step).is_shared)

    def _when_needed(self, job: Job) -> Call:
        return lambda *arguments: self.loader.call(job.step, arguments)

    def _keeping(self, call: Call, job: Job) -> Call:
        def run(*arguments: Any) -> Any:
            result: Any = call(*arguments)
            key = current().keys.get(job.name)
            if key is not None:
                self.cache.put(key, by_port(job.step.node, result))
            return result

        return run

    def _tell_odd(self, job: Job, text: str, is_lasting: bool) -> None:  # noqa: FBT001 as finite.Tell
        if is_lasting:
            self.loader.warn(job.step, f"{job.step.node.name}: {text}")
        else:
            tell(Warned, job.step.node.name, text=text)


def show(run: Run, port: Port, value: Any) -> Any:
    """What the user gets for an output: of one record the record, of a batch the list, ABSENT for what was left out.

    In memory of its own: what the cache, other outputs, the inputs or a module hold is not written to by who gets it.
    """
    if value is None or isinstance(value, Partial):
        listed = own(records_of(value, run.count))
        return listed[0] if run.is_single else listed
    return own(values.present(port, value, single=run.is_single))


def _show(port: Port, value: Any) -> Any:
    return show(current(), port, value)


def _measure(_name: str, outputs: Mapping[str, Any]) -> int | None:
    return size_bytes(dict(outputs))


def _count() -> int:
    return current().count


def _is_stopped() -> bool:
    return current().cancelled.is_set()
