"""Graphs as nodes: the nodes of the inner graph take the place of the node, and wires are led through.

The node `enc` of a graph that stands as node `eye` is called `eye/enc`. An input of the inner graph that is not wired
and has a default becomes the input `eye/prompt` of the outer graph, with that default. Of the inner graph only what
the used outputs need is taken over, as a run would prune it anyway.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from modelgraft.kernel.words.errors import Collector, Place, Problem, choices, nearest
from modelgraft.kernel.words.graph import INPUTS, AdapterSpec, GraphInput, GraphSpec, NodeSpec, Ref, Value, Wire
from modelgraft.kernel.words.order import reach
from modelgraft.kernel.words.wording import option

Refs = tuple[Ref, ...]


@dataclass(slots=True)
class Inlining:
    """Puts subgraphs in the place of their nodes within one graph."""

    nodes: Mapping[str, NodeSpec]
    inputs: Mapping[str, GraphInput]
    placed: dict[str, tuple[NodeSpec, GraphSpec]]
    outputs: Mapping[str, Ref]
    runtime: Mapping[str, Value]
    allow: frozenset[str]
    collector: Collector
    lifted: dict[str, GraphInput] = field(default_factory=dict)
    left_over: list[Problem] = field(default_factory=list)
    _following: list[tuple[str, str]] = field(default_factory=list)

    def inline(self) -> dict[str, NodeSpec]:
        """All nodes of the graph, those of subgraphs under their longer names."""
        used = self._used_outputs() if self.placed else {}
        for name, (spec, inner) in self.placed.items():
            self._check_names(spec, inner)
            reached = self._reached_inside(name, inner)
            if not used[name] and not reached and "unused" not in self.allow:
                hint = f"remove it, or check with {option('allow', 'unused')} while you draft"
                self.left_over.append(Problem("unused-node", f"no output needs {name}", spec.place, hint, name))
            self.left_over += [replace(found, node=f"{name}/{found.node}") if found.node else found for found in inner.left_over]
            self.placed[name] = (spec, needed_part(inner, used[name] if used[name] or reached else inner.outputs, inside=reached))
        for spec, inner in self.placed.values():
            self._lift_inputs(spec, inner)
        done = {name: self._rewire(node) for name, node in self.nodes.items()} if self.placed else dict(self.nodes)
        for spec, inner in self.placed.values():
            for node in inner.nodes.values():
                moved = self._move(node, spec, inner)
                done[moved.name] = moved
        return done

    def output(self, ref: Ref, what: str) -> Ref | None:
        """What an output of the graph is fed by, after inlining."""
        refs = self.follow(ref)
        if refs is not None and len(refs) > 1:
            self.collector.add("list-for-one", f"{what} is a list of {len(refs)} values; wanted one", place=ref.place)
        return refs[0] if refs else None

    def ports(self) -> dict[str, Ref]:
        """What gives the outputs of the subgraphs, as they are called outside; see GraphSpec.ports. For a graph without problems."""
        found: dict[str, Refs] = {}
        for name, (spec, inner) in self.placed.items():
            found |= {f"{name}.{port}": self.follow(Ref(name, port)) or () for port in inner.outputs}
            found |= {f"{name}/{port}": self._lead(ref, spec, inner, None) for port, ref in inner.ports.items()}
        return {name: refs[0] for name, refs in found.items() if len(refs) == 1}

    # -- outer references --------------------------------------------------------------------------------------------

    def follow(self, ref: Ref) -> Refs | None:
        """Replace a reference to an output of a subgraph by what gives it; None when there is a problem."""
        if ref.node not in self.placed:
            return self._follow_inside(ref)
        spec, inner = self.placed[ref.node]
        port = self._output_port(ref, inner)
        if port is None:
            return None
        step = (ref.node, port)
        if step in self._following:
            chain = " -> ".join(f"{node}.{name}" for node, name in (*self._following[self._following.index(step) :], step))
            self.collector.add("cycle", f"these only hand on each other's values: {chain}", place=ref.place)
            return None
        self._following.append(step)
        try:
            return self._lead(inner.outputs[port], spec, inner, ref.place)
        finally:
            self._following.pop()

    def _follow_inside(self, ref: Ref) -> Refs:
        """A reference to a node inside a subgraph stays, it has that name; one to a graph inside becomes what gives it."""
        name, _, rest = ref.node.partition("/")
        if name not in self.placed or not rest:
            return (ref,)
        spec, inner = self.placed[name]
        ports = {port: given for port, given in inner.ports.items() if port.rpartition(".")[0] == rest}
        given = ports.get(f"{rest}.{ref.port}") if ref.port else next(iter(ports.values())) if len(ports) == 1 else None
        return (ref,) if given is None else self._lead(given, spec, inner, ref.place)

    def _reached_inside(self, name: str, inner: GraphSpec) -> set[str]:
        """The nodes inside a subgraph that something outside names itself: by a wire, as an output, or to share their weights."""
        shares = [str(node.share.value) for node in self.nodes.values() if node.share is not None]
        named = [*((ref.node, ref.port) for ref in self._outer_references()), *((share, "") for share in shares)]
        found: set[str] = set()
        for node, port in named:
            head, _, rest = node.partition("/")
            if head == name and rest:
                graphs = {key: ref.node for key, ref in inner.ports.items() if key.rpartition(".")[0] == rest}
                found |= {graphs[f"{rest}.{port}"]} if f"{rest}.{port}" in graphs else set(graphs.values())
                found |= {rest} & inner.nodes.keys()
        return found

    def _outer_references(self) -> list[Ref]:
        """Every reference that is written in this graph itself."""
        own = [ref for node in self.nodes.values() for ref in node.references]
        led = [ref for spec, _ in self.placed.values() for wire in spec.wires.values() for ref in wire.refs]
        routes = [spec.when for spec, _ in self.placed.values() if spec.when is not None]
        return [*own, *led, *routes, *self.outputs.values()]

    def _output_port(self, ref: Ref, inner: GraphSpec) -> str | None:
        if ref.port in inner.outputs:
            return ref.port
        if not ref.port and len(inner.outputs) == 1:
            return next(iter(inner.outputs))
        found = f"{ref.node} has no output '{ref.port}'" if ref.port else f"{ref.node} has several outputs"
        sentence = f"{found}; it has: {choices(inner.outputs)}"
        hint = nearest(ref.port, inner.outputs) if ref.port else f"write e.g. {ref.node}.{next(iter(sorted(inner.outputs)), 'name')}"
        self.collector.add("unknown-port", sentence, place=ref.place, hint=hint, node=ref.node, port=ref.port)
        return None

    def _rewire(self, node: NodeSpec) -> NodeSpec:
        touched = any(ref.node in self.placed for wire in node.wires.values() for ref in wire.refs)
        touched = touched or (node.when is not None and node.when.node in self.placed) or bool(node.adapters)
        if not touched:
            return node
        return replace(
            node,
            wires=self._outer_wires(node.wires),
            when=self.single(node.when, f"{node.name}.when"),
            adapters=tuple(replace(adapter, wires=self._outer_wires(adapter.wires)) for adapter in node.adapters),
        )

    def _outer_wires(self, wires: Mapping[str, Wire]) -> dict[str, Wire]:
        led: dict[str, Wire] = {}
        for port, wire in wires.items():
            found = [self.follow(ref) for ref in wire.refs]
            refs = tuple(ref for part in found if part is not None for ref in part)
            if refs:
                led[port] = Wire(refs, wire.is_list or len(refs) > 1, wire.place)
        return led

    def single(self, ref: Ref | None, what: str) -> Ref | None:
        """The same for a reference that may be missing."""
        return None if ref is None else self.output(ref, what)

    def _used_outputs(self) -> dict[str, set[str]]:
        """By subgraph: the outputs that something names, as far as there are such outputs."""
        used: dict[str, set[str]] = {name: set() for name in self.placed}
        for ref in self._outer_references():
            if ref.node in used:
                names = self.placed[ref.node][1].outputs
                used[ref.node] |= {ref.port} & names.keys() if ref.port else set(names)
        return used

    # -- inner references --------------------------------------------------------------------------------------------

    def _check_names(self, spec: NodeSpec, inner: GraphSpec) -> None:
        for port, wire in spec.wires.items():
            if port not in inner.inputs:
                found = f"{spec.name} has no input '{port}'; it has: {choices(inner.inputs)}"
                self.collector.add("unknown-port", found, place=wire.place, hint=nearest(port, inner.inputs), node=spec.name, port=port)

    def _lift_inputs(self, spec: NodeSpec, inner: GraphSpec) -> None:
        read = {ref.port for ref in _references(inner) if ref.is_input}
        for port, entry in inner.inputs.items():
            if port not in read or port in spec.wires or entry.port.optional:
                continue
            if entry.has_default:
                name = f"{spec.name}/{port}"
                self.lifted[name] = replace(entry, name=name)
            else:
                found = f"nothing feeds the input '{port}' of {spec.name}, of type {entry.port}"
                hint = f"add {port}: {self._unread(entry)}to {spec.name}.in"
                self.collector.add("missing-input", found, place=spec.place, hint=hint, node=spec.name, port=port)

    def _unread(self, wanted: GraphInput) -> str:
        """An input of this graph of the wanted type that nothing reads yet, as it is written with a space behind; "" without one."""
        wires = [wire for spec, _ in self.placed.values() for wire in spec.wires.values()]
        read = {ref.port for ref in (*(ref for wire in wires for ref in wire.refs), *self.outputs.values()) if ref.is_input}
        read |= {ref.port for node in self.nodes.values() for ref in node.references if ref.is_input}
        could = sorted(name for name, given in self.inputs.items() if name not in read and given.port.types == wanted.port.types)
        best = next((name for name in could if name == wanted.name), *could[:1] or [""])
        return f"{INPUTS}.{best} " if best else ""

    def _lead(self, ref: Ref, spec: NodeSpec, inner: GraphSpec, place: Place | None) -> Refs:
        """What an inner reference means outside; empty for an optional input that nothing feeds."""
        if not ref.is_input:
            return (Ref(f"{spec.name}/{ref.node}", ref.port, place),)
        if ref.port in spec.wires:
            found = [self.follow(outer) for outer in spec.wires[ref.port].refs]
            return tuple(ref for part in found if part is not None for ref in part)
        lifted = f"{spec.name}/{ref.port}"
        if lifted in self.lifted:
            return (Ref(INPUTS, lifted, place),)
        # A reference to an input that the inner graph does not declare stays, for the checker to report.
        return () if ref.port in inner.inputs else (Ref(INPUTS, lifted, ref.place),)

    def _inner_wires(self, wires: Mapping[str, Wire], spec: NodeSpec, inner: GraphSpec) -> dict[str, Wire]:
        led: dict[str, Wire] = {}
        for port, wire in wires.items():
            refs = tuple(ref for inside in wire.refs for ref in self._lead(inside, spec, inner, inside.place))
            was_list = any(ref.is_input and ref.port in spec.wires and spec.wires[ref.port].is_list for ref in wire.refs)
            if refs:
                led[port] = Wire(refs, wire.is_list or was_list or len(refs) > 1, wire.place)
        return led

    def _move(self, node: NodeSpec, spec: NodeSpec, inner: GraphSpec) -> NodeSpec:
        when = self.single(spec.when, f"{spec.name}.when")
        if node.when is not None:
            led = self._lead(node.when, spec, inner, node.when.place)
            own = led[0] if led else None
            if spec.when is not None:
                found = f"{spec.name} goes by `when`, and so does its node {node.name} ({node.place.short}); a node follows one route"
                hint = "route inside the graph or outside, not both"
                self.collector.add("two-routes", found, place=spec.place, hint=hint, node=spec.name)
            when = own
        return replace(
            node,
            name=f"{spec.name}/{node.name}",
            wires=self._inner_wires(node.wires, spec, inner),
            frozen=node.frozen or spec.frozen,
            when=when,
            lazy=node.lazy or spec.lazy,
            switches={**node.switches, **{key: origin for key, origin in spec.switches.items() if not getattr(node, key)}},
            share=replace(node.share, value=f"{spec.name}/{node.share.value}") if node.share else None,
            adapters=tuple(self._move_adapter(adapter, spec, inner) for adapter in node.adapters),
            runtime={**{k: v for k, v in inner.runtime.items() if k not in self.runtime}, **node.runtime, **spec.runtime},
        )

    def _move_adapter(self, adapter: AdapterSpec, spec: NodeSpec, inner: GraphSpec) -> AdapterSpec:
        return replace(adapter, wires=self._inner_wires(adapter.wires, spec, inner))


def _references(graph: GraphSpec) -> list[Ref]:
    return [*(ref for node in graph.nodes.values() for ref in node.references), *graph.outputs.values()]


def needed_part(graph: GraphSpec, outputs: Collection[str], *, inside: Collection[str] = ()) -> GraphSpec:
    """The graph without the nodes that neither the given outputs nor the nodes named `inside` need; unchanged when the outputs need all."""
    if len(outputs) == len(graph.outputs) and not graph.losses:  # losses are of the graph itself, not of one that places it
        return graph  # what no output at all needs is a mistake inside that graph: it stays, for the checker to report
    kept = {name: ref for name, ref in graph.outputs.items() if name in outputs}
    reached = reach([*(ref.node for ref in kept.values()), *inside], lambda name: graph.nodes[name].needs if name in graph.nodes else ())
    nodes = {name: node for name, node in graph.nodes.items() if name in reached}
    ports = {name: ref for name, ref in graph.ports.items() if ref.is_input or ref.node in nodes}
    return replace(graph, nodes=nodes, outputs=kept, ports=ports)
