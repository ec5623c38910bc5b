"""A plan made ready to run: which inputs it takes, which of its results may come from the cache, and its engines."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelgraft.engine.asking import Branch, branches_of, outputs_of
from modelgraft.engine.cache import Cache, Outputs
from modelgraft.engine.calls import Check, port_check
from modelgraft.engine.demand import Demand, most_demanding
from modelgraft.engine.engine import Engine
from modelgraft.engine.intake import Inlet, inlet_of
from modelgraft.engine.layout import Layout, arguments, arrange
from modelgraft.kernel.words.graph import Ref
from modelgraft.kernel.words.order import reach
from modelgraft.kernel.words.plan import Plan, Step
from modelgraft.kernel.words.ports import Port
from modelgraft.records.digests import combine, digest
from modelgraft.records.record_type import Types, types_of
from modelgraft.records.values import plain_of
from modelgraft.sources import kept

MOST_ENGINES = 64  # sets of cached nodes that a plan keeps an engine for


@dataclass(frozen=True, slots=True)
class Outlet:
    """A wanted output: its name, where it comes from, its port, and what looks at its value, None for an input.

    plain  types of Python whose values need neither a look nor a copy
    """

    name: str
    ref: Ref
    port: Port
    check: Check | None
    plain: frozenset[type] = frozenset()


@dataclass(slots=True)
class Prepared:
    """A plan with what a run looks up.

    outlets    the wanted outputs
    inlets     the inputs of the graph that its steps read
    keyed      the steps whose results may be kept;  random  the nodes whose results depend on the seed
    demand     what needs the most memory for a record
    """

    plan: Plan
    outlets: tuple[Outlet, ...]
    inlets: tuple[Inlet, ...]
    keyed: Mapping[str, Step]
    random: frozenset[str]
    demand: Demand
    engines: dict[tuple[frozenset[str], bool], Engine] = field(default_factory=dict)

    def engine(self, hits: frozenset[str], *, is_observed: bool, make: Callable[[Layout], Engine]) -> Engine:
        """The engine for a set of nodes that come from the cache."""
        found = self.engines.get((hits, is_observed))
        if found is None:
            if len(self.engines) >= MOST_ENGINES:
                self.engines.clear()
            found = make(arrange(self.plan.steps, wanted=tuple(self.plan.wanted.values()), ready=hits))
            self.engines[hits, is_observed] = found
        return found

    def keys(self, values: Mapping[str, Any], seed: int, *, salt: str, count: int) -> dict[str, str]:
        """The cache key of each result that may be kept; those that depend on a value of an unknown type have none.

        salt   what every result of the pipeline depends on beside its plan: the numbers that random weights start from
        count  the size of the batch, on which those depend that no input feeds, or none that is given
        """
        read = {name for step in self.keyed.values() for name in step.reads}
        digests = {name: digest(values.get(name)) for name in sorted(read)}
        keys = {}
        for name, step in self.keyed.items():
            parts = [digests[read] for read in step.reads]
            if None not in parts:
                seeds = (str(seed),) if name in self.random else ()
                sizes = () if any(values.get(read) is not None for read in step.reads) else (f"batch of {count}",)
                keys[name] = combine(salt, step.key, *(part for part in parts if part is not None), *seeds, *sizes)
        return keys

    def hits(self, cache: Cache, keys: Mapping[str, str], tell: Callable[[str, str], None]) -> dict[str, Outputs]:
        """The results that make a part of the plan unnecessary, looked for from the wanted outputs back.

        tell  hears, by the name of the node, of a result that was kept and is broken
        """
        steps, found = self.plan.nodes, dict[str, Outputs]()

        def feeders(name: str) -> set[str]:
            if name not in steps:
                return set()
            with kept.loading() as said:
                outputs = cache.get(keys[name]) if name in keys else None
            for text in said:
                tell(name, text)
            if outputs is not None:
                found[name] = outputs
                return set()
            return steps[name].node.feeders

        reach((ref.node for ref in self.plan.wanted.values()), feeders)
        return found


def prepare(plan: Plan) -> Prepared:
    """Look at a plan once, so that its runs need not."""
    read = {ref for step in plan.steps for ref in arguments(step) if ref is not None} | set(plan.wanted.values())
    types = types_of(plan.graph.graph.registry)
    inputs = [item for name, item in plan.graph.inputs.items() if any(ref.is_input and ref.port == name for ref in read)]
    keyed = {step.node.name: step for step in plan.steps if step.key and step.node.component.cache}
    within = branches_of(plan.graph.nodes)
    outlets = tuple(_outlet(plan, name, ref, types, within) for name, ref in plan.wanted.items())
    inlets = tuple(inlet_of(item, types) for item in inputs)
    return Prepared(plan, outlets, inlets, keyed, random_nodes(plan.steps), most_demanding(plan.steps))


def _outlet(plan: Plan, name: str, ref: Ref, types: Types, within: Mapping[str, frozenset[Branch]]) -> Outlet:
    port = port_of(plan, ref)
    outer = outputs_of(plan.graph.nodes, ref, port, within)
    check = None if ref.is_input else port_check(plan.graph.nodes[ref.node], ref.port, port, types)
    return Outlet(name, ref, outer, check, frozenset() if outer.several else plain_of(outer.type, types))


def port_of(plan: Plan, ref: Ref) -> Port:
    """The port that a reference stands for."""
    return plan.graph.inputs[ref.port].port if ref.is_input else plan.graph.nodes[ref.node].out_ports[ref.port]


def random_nodes(steps: Sequence[Step]) -> frozenset[str]:
    """The nodes whose results depend on the seed: random ones, and those that follow from them."""
    found: set[str] = set()
    for step in steps:
        if step.node.component.random or reads_any(step, found):
            found.add(step.node.name)
    return frozenset(found)


def reads_any(step: Step, names: Collection[str]) -> bool:
    """Say whether a step reads one of these nodes."""
    return any(ref is not None and ref.node in names for ref in arguments(step))
