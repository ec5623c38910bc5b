"""Plans a checked graph: what runs for the wanted outputs, in which order and where, what it costs, what it depends on."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from modelgraft.kernel.checking.placement import NOT_INSTALLED
from modelgraft.kernel.planning.counting import CountBuilt, add_up, count, weight_bytes
from modelgraft.kernel.planning.provenance import key_of
from modelgraft.kernel.shelf.registry import Registry
from modelgraft.kernel.words.errors import InputError, choices, nearest
from modelgraft.kernel.words.graph import INPUTS, Node, Ref, SolvedGraph
from modelgraft.kernel.words.order import reach, topological
from modelgraft.kernel.words.plan import Parameters, Plan, Step
from modelgraft.kernel.words.sizes import EVERY_DEVICE, SIZES, named, sizes_of

UNSAID = {"backend": "torch", "device": "cpu", "dtype": "float32", "precision": "", "threads": ""}  # what "auto", and silence, mean
FREE = "free"  # the lane of light code: it waits for nothing


@dataclass(frozen=True, slots=True)
class Placement:
    """Where and how nodes run: flags win over a node's `runtime`, that over the graph's, that over `otherwise`.

    "device of NAME" in `otherwise` is the device of nodes on the backend of that name, where it is not "device".
    """

    graph: SolvedGraph
    flags: Mapping[str, Any]  # Any: numbers of threads as well
    otherwise: Mapping[str, str]
    usual: dict[str, str] = field(default_factory=dict)  # of nodes that say nothing themselves, once asked for

    def of(self, node: Node, what: str) -> str:
        """The backend, device, dtype, precision or threads of a node."""
        if not node.runtime and what in self.usual:
            return self.usual[what]
        whole = self.graph.graph.runtime.get(what)
        asked = (self.flags.get(what), node.runtime.get(what), whole.value if whole is not None else None)
        decided = next((str(choice) for choice in asked if choice is not None), "auto")
        own = f"device of {self.of(node, 'backend')}" if what == "device" else what
        found = decided if decided != "auto" else self.otherwise.get(own, self.otherwise[what])
        return found if node.runtime else self.usual.setdefault(what, found)

    def limits(self, devices: Iterable[str]) -> dict[str, int]:
        """The most that devices may hold: as was asked, else as the graph says, else `otherwise`.

        Raises InputError for what no backend has as a device, and no step runs on.
        """
        whole = self.graph.graph.runtime.get("max_memory")
        asked = (self.flags.get("max_memory"), whole.value if whole is not None else None, self.otherwise.get("max_memory"))
        limits = next((sizes_of(choice) for choice in asked if choice not in (None, "")), {})
        cards = [NOT_INSTALLED, *self.graph.graph.registry.backends.values()]
        for device in sorted(limits.keys() - {EVERY_DEVICE, *devices}):
            if device == "auto" or not any(card.devices and card.takes(device) for card in cards):
                raise InputError(f"max_memory names '{device}', which is no device; wanted: {SIZES}")
        return {named(device): size for device, size in limits.items()}


def plan(
    solved: SolvedGraph,
    *,
    wanted: Mapping[str, Ref] | Sequence[str] | None = None,
    asked: Mapping[str, Any] | None = None,
    count_built: CountBuilt | None = None,
    otherwise: Mapping[str, str] | None = None,
    made: type[Plan] = Plan,
) -> Plan:
    """Plan the nodes that the wanted outputs need.

    wanted       names of outputs, or ports as "node.port", or both by the name of the result; None: every declared output
    asked        backend, device, dtype, precision and threads that win over what the graph says
    otherwise    what "auto" and silence mean for each
    made         the class of the plan, for who shows plans in a way of their own
    count_built  counts the parameters of a module as it is built, to be compared with its formula; None: formulas alone

    Raises InputError for an output that is not there and for weights that a backend does not have, GraphError when a formula is wrong.
    """
    ends = _wanted(solved, wanted)
    feeders = {name: node.feeders for name, node in solved.nodes.items()}
    needed = reach((ref.node for ref in ends.values() if not ref.is_input), feeders.__getitem__)
    order = topological({name: feeders[name] for name in needed})
    placement = Placement(solved, asked or {}, {**UNSAID, **(otherwise or {})})
    for name in order:
        _check_weights(solved.nodes[name], placement, solved.graph.registry)
    steps: list[Step] = []
    keys: dict[str, str] = {}
    reads: dict[str, frozenset[str]] = {}
    read = {*ends.values(), *(ref for name in order for ref in solved.nodes[name].references)}
    for name in order:
        node = _tapped(solved.nodes[name], read)
        reads[name] = _reads(node, reads)
        step = _step(node, solved, placement, keys, built=count_built, reads=tuple(sorted(reads[name])))
        keys[name] = step.key
        steps.append(step)
    pruned = tuple(name for name in solved.nodes if name not in needed)
    return made(solved, ends, tuple(steps), pruned, add_up(_counted_once(steps)), placement.limits({step.device for step in steps}))


def _tapped(node: Node, read: Collection[Ref]) -> Node:
    """The node without the taps that nobody reads: see `Component.taps`."""
    unread = [port for port in node.component.taps if port in node.out_ports and Ref(node.name, port) not in read]
    return replace(node, out_ports={name: port for name, port in node.out_ports.items() if name not in unread}) if unread else node


def _step(
    node: Node,
    solved: SolvedGraph,
    placement: Placement,
    keys: Mapping[str, str],
    *,
    built: CountBuilt | None,
    reads: tuple[str, ...],
) -> Step:
    backend, device, dtype, precision, threads = (placement.of(node, key) for key in ("backend", "device", "dtype", "precision", "threads"))
    parameters = count(node, built=built)
    card = solved.graph.registry.backends.get(backend)
    return Step(
        node=node,
        parameters=parameters,
        bytes=weight_bytes(parameters, precision or dtype),
        backend=backend,
        device=device,
        dtype=dtype,
        lane=FREE if node.component.function is not None else device,
        shapes={name: str(port) for name, port in node.out_ports.items()},
        key=key_of(node, solved, keys, backend=backend, dtype=precision or dtype),
        reads=reads,
        precision=precision if node.component.module is not None else "",
        threads=int(threads) if threads else None,
        fuses=card is not None and card.fuses,
    )


def _check_weights(node: Node, placement: Placement, registry: Registry) -> None:
    """Refuse a precision, or without one a dtype, that the backend of a node is known not to have."""
    backend, what = placement.of(node, "backend"), "precision" if placement.of(node, "precision") else "dtype"
    card, wanted = registry.backends.get(backend), placement.of(node, what)
    known = card.precisions if card is not None else ()
    if node.component.module is not None and known and wanted not in known:
        have = choices(name for name, other in registry.backends.items() if wanted in other.precisions)
        raise InputError(f"{node.name}: the {backend} backend has no {what} '{wanted}'; it has {choices(known)}; found on: {have}")


# -- what is wanted -----------------------------------------------------------------------------------------------------


def _wanted(solved: SolvedGraph, wanted: Mapping[str, Ref] | Sequence[str] | None) -> dict[str, Ref]:
    if wanted is None:
        return dict(solved.outputs)
    if isinstance(wanted, str):
        wanted = (wanted,)
    if isinstance(wanted, Mapping):
        return {name: find_output(solved, str(ref)) for name, ref in wanted.items()}
    return {name: find_output(solved, name) for name in wanted}


def find_output(solved: SolvedGraph, name: str) -> Ref:
    """What gives an output: a declared one by its name, or any port as "node.port", or "node" with one output.

    A graph that stands as a node has the outputs that the graph around it uses.

    Raises InputError with what there is.
    """
    if name in solved.outputs:
        return solved.outputs[name]
    node, _, port = name.rpartition(".") if _ports_of(solved, name) is None else (name, "", "")
    if node == INPUTS and port in solved.inputs:
        return Ref(INPUTS, port)
    ports = _ports_of(solved, node)
    if ports is None:
        near = nearest(name, [*solved.outputs, *solved.nodes]) or nearest(node, solved.nodes)
        found = f"there is no output '{name}'; the outputs are: {choices(solved.outputs)}, and any port as node.port. {near}"
        raise InputError(found.rstrip())
    if not port and len(ports) == 1:
        port = ports[0]
    if port not in ports:
        own = "" if node in solved.nodes else " that the graph uses"
        found = f"{node} has no output '{port}'{own}" if port else f"{node} has {len(ports)} outputs; say which"
        raise InputError(f"{found}; it has: {choices(ports, sort=False)}. {nearest(port, ports)}".rstrip())
    inner = solved.graph.ports.get(f"{node}.{port}")
    return Ref(node, port) if inner is None else find_output(solved, str(inner))


def _ports_of(solved: SolvedGraph, name: str) -> list[str] | None:
    """The outputs of a node, or those that are used of a graph that stands as one; None when there is neither of that name."""
    if name in solved.nodes:
        return list(solved.nodes[name].out_ports)
    return [port for node, _, port in (key.rpartition(".") for key in solved.graph.ports) if node == name] or None


# -- what follows from the order ----------------------------------------------------------------------------------------


def _reads(node: Node, before: Mapping[str, frozenset[str]]) -> frozenset[str]:
    found: set[str] = set()
    for ref in node.references:
        found |= {ref.port} if ref.is_input else before[ref.node]
    return frozenset(found)


def _counted_once(steps: Sequence[Step]) -> list[tuple[Parameters, int | None]]:
    """The costs of the steps without weights that another step has as well; adapters stay their own."""
    owners: set[str] = set()
    rows: list[tuple[Parameters, int | None]] = []
    for step in steps:
        owner = step.node.share or step.node.name
        if owner in owners and not step.node.adapters:
            continue
        owners.add(owner)
        rows.append((step.parameters, step.bytes))
    return rows
