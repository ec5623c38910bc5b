"""A plan as it is called while a part of it learns: the same nodes, the parts that learn with gradients and the others without.

It is the pipeline's own loader, inputs and calls, in the order of the plan and without lanes: one thread, because gradients are followed
there. Nothing is taken from the cache of results; what stays as it is may be given from outside (`ready`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch

from modelgraft.engine.asking import branches_of
from modelgraft.engine.backend import Call
from modelgraft.engine.calls import check_of, checked, listed
from modelgraft.engine.forms import in_form, in_tensors
from modelgraft.engine.intake import Inlet, read, refuse_unknown
from modelgraft.engine.layout import Job, arrange
from modelgraft.engine.modules.calling import LEARNING
from modelgraft.engine.pipeline import Pipeline
from modelgraft.engine.routing import is_asked, routed, routed_nodes
from modelgraft.engine.run import SERVING, Run, current
from modelgraft.kernel.words.errors import InputError, ModelgraftError, NodeError
from modelgraft.kernel.words.graph import INPUTS, Ref
from modelgraft.kernel.words.guard import contained, said
from modelgraft.kernel.words.plan import Plan
from modelgraft.records.batch import Batch, Unlike
from modelgraft.records.values import Given
from modelgraft.sources.archives import only_cached

ReadRecord = Mapping[str, Given | None]  # the inputs of a record, as they were read
Heard = Callable[[str, str, Any], None]


@dataclass(frozen=True, slots=True)
class ReadBatch:
    """Records as a batch.

    values  by input;  count  how many;  left_out  by its number among those that were given, why a record is not in it
    """

    values: Mapping[str, Any]
    count: int
    left_out: Mapping[int, ModelgraftError]


class Learning:
    """The calls of a training step.

    learners  the nodes that are called with gradients;  ready  what is given in place of nodes, by port
    """

    def __init__(self, pipeline: Pipeline, wanted: Sequence[str], *, learners: Collection[str], ready: Collection[Ref] = ()) -> None:
        """Load every node that is called. Raises what loading raises."""
        self.prepared = pipeline._prepared(tuple(wanted))
        self.plan: Plan = self.prepared.plan
        self.learners, self._loader, self._types = frozenset(learners), pipeline._loader, pipeline._types
        self.layout = arrange(self.plan.steps, wanted=tuple(self.plan.wanted.values()), ready={ref.node for ref in ready})
        steps = [job.step for job in self.layout.jobs]
        self._loader.require(step.node for step in steps)
        self._loader.refuse_misfits(steps)
        run = Run(pipeline.opening.seed)
        token = SERVING.set(run)
        try:
            for step in steps:
                self._loader.load(step)
        finally:
            SERVING.reset(token)
        after_route, asked = routed_nodes(self.layout.jobs, self.plan.graph), frozenset(branches_of(self.plan.graph.nodes))
        self._inlets = [inlet for inlet in self.prepared.inlets if Ref(INPUTS, inlet.item.name) in self.layout.given]
        self.spent: dict[str, float] | None = None  # where it is a mapping, seconds of each node are added to it
        self._calls = [
            self._call(job, is_routed=job.name in after_route, is_in_branch=is_asked(job.step.node, asked)) for job in self.layout.jobs
        ]
        self.warnings = tuple(dict.fromkeys([*self._loader.warnings(steps), *run.said]))

    @property
    def inputs(self) -> frozenset[str]:
        """The inputs of the graph that the calls read."""
        return frozenset(inlet.item.name for inlet in self._inlets)

    @property
    def takes_ready(self) -> frozenset[Ref]:
        """The ports that are to be given in place of nodes."""
        return frozenset(ref for ref in self.layout.given if not ref.is_input)

    @property
    def takes(self) -> tuple[str, ...]:
        """The same as their ports say them: what reads the same gives the same."""
        return tuple(f"{inlet.item.name}: {inlet.item.port}" for inlet in self._inlets)

    @property
    def modules(self) -> dict[str, torch.nn.Module]:
        """The modules of the nodes that are called, and of those whose weights they use, by name."""
        nodes = self.plan.graph.nodes
        names = {job.name for job in self.layout.jobs}
        names |= {share for name in names if (share := nodes[name].share) is not None}
        loaded = self._loader.loaded()
        return {name: loaded[name].state for name in sorted(names) if name in loaded and isinstance(loaded[name].state, torch.nn.Module)}

    def read(self, records: Sequence[Mapping[str, Any] | ModelgraftError], whole: Mapping[str, Any] | None = None) -> ReadBatch:
        """Read records as the pipeline reads them, and put them together; one that does not fit is left out, with the reason.

        whole  by input, values of all these records that were read before, as tensors: they are taken as they are
        """
        given = whole or {}
        inlets = [inlet for inlet in self._inlets if inlet.item.name not in given]
        rows = [self._read(record, inlets) for record in records]
        left_out = {index: row for index, row in enumerate(rows) if isinstance(row, ModelgraftError)}
        good = [row for row in rows if not isinstance(row, ModelgraftError)]
        there = [index for index in range(len(rows)) if index not in left_out]
        values = {inlet.item.name: _joined(inlet.item.name, good) for inlet in inlets}
        values |= {name: tensor[there] if left_out else tensor for name, tensor in given.items()}
        return ReadBatch(values, len(good), left_out)

    def _read(self, record: Mapping[str, Any] | ModelgraftError, inlets: Sequence[Inlet]) -> ReadRecord | ModelgraftError:
        if isinstance(record, ModelgraftError):
            return record
        try:
            refuse_unknown(record, self.plan.graph.inputs)
            if not inlets:
                return {}
            with only_cached("a record starts no download"), contained():
                return {inlet.item.name: read(inlet, record) for inlet in inlets}
        except ModelgraftError as error:
            return error
        except Exception as error:  # noqa: BLE001 a file may make its decoder fail in any way
            return InputError(f"the record cannot be read: {said(error)}")

    def __call__(self, batch: ReadBatch, *, seed: int, ready: Mapping[Ref, Any] | None = None, seen: Heard | None = None) -> dict[str, Any]:
        """Call every node once, and give the wanted values by name: tensors with what gradients need.

        seed   of everything that nodes draw;  ready  the values that were said to be given
        seen   hears what each node gave: its name, the port, the value
        """
        run = Run(seed)
        run.count, run.is_single = batch.count, False
        token = SERVING.set(run)
        try:
            return self._run(batch, ready or {}, seen)
        finally:
            run.end()
            SERVING.reset(token)

    def _run(self, batch: ReadBatch, ready: Mapping[Ref, Any], seen: Heard | None) -> dict[str, Any]:
        values: list[Any] = [None] * len(self.layout.slots)
        for slot, ref in enumerate(self.layout.given):
            values[slot] = batch.values[ref.port] if ref.is_input else ready[ref]
        for job, call in zip(self.layout.jobs, self._calls, strict=True):
            start = perf_counter()
            result = call(*(None if slot is None else values[slot] for slot in job.takes))
            if self.spent is not None:
                self.spent[job.name] = self.spent.get(job.name, 0.0) + perf_counter() - start
            for port, slot in job.gives:
                values[slot] = in_tensors(result if job.sole else result.get(port))
                if seen is not None:
                    seen(job.name, port, values[slot])
            for slot in job.drops:
                values[slot] = None
        return {name: values[slot] for name, slot in zip(self.plan.wanted, self.layout.wanted, strict=True)}

    def _call(self, job: Job, *, is_routed: bool, is_in_branch: bool) -> Call:
        node = job.step.node
        call = in_form(listed(self._loader.load(job.step).call_for(node), node), node)
        if is_routed:
            call = routed(call, node, count=_count, check=check_of(node, self._types, on_torch=True), is_asked=is_in_branch)
        else:
            call = checked(call, node, count=_count, is_stopped=lambda: False, types=self._types, on_torch=True)
        return _named(_with_gradients(call) if job.name in self.learners else call, job)


def plan_for(pipeline: Pipeline, wanted: Sequence[str]) -> Plan:
    """The plan of these ports, without loading anything."""
    return pipeline._prepared(tuple(wanted)).plan


def _with_gradients(call: Call) -> Call:
    def run(*values: Any) -> Any:
        token = LEARNING.set(True)
        try:
            with torch.enable_grad():
                return call(*values)
        finally:
            LEARNING.reset(token)

    return run


def _named(call: Call, job: Job) -> Call:
    """What a node raises as one error that names it."""

    def run(*values: Any) -> Any:
        try:
            return call(*values)
        except ModelgraftError:
            raise
        except Exception as error:
            component = job.step.node.component.id
            raise NodeError(f"node '{job.name}' ({component}) failed: {said(error)}", node=job.name, component=component) from error

    return run


def _count() -> int:
    return current().count


def _joined(name: str, records: Sequence[ReadRecord]) -> Any:
    """One input of several records. Raises InputError for tensors that are no single batch."""
    there = [(index, one.value) for index, record in enumerate(records) if (one := record[name]) is not None]
    if not there:
        return None
    try:
        if len(there) == len(records):
            return Batch.join([Batch(value) for _, value in there]).value
        return Batch.join([Batch(value, (index,)) for index, value in there]).on_wire(len(records))
    except Unlike as error:
        raise InputError(f"input '{name}': the records of a batch hold {error}, which is no single batch") from error
