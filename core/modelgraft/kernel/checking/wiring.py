"""Wiring: every name in the graph means something, every wire joins two ports that can be joined, nothing is left over.

Two steps, both reported together: what the texts alone tell (`wire_names`: components, nodes, cycles, what nobody
uses), then, for the nodes whose components and configs are known, what their ports tell (`PortWiring`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from modelgraft.kernel.checking.adviser import Advice
from modelgraft.kernel.checking.drafts import Draft
from modelgraft.kernel.checking.matching import choose
from modelgraft.kernel.words.errors import Collector, Place, choices, nearest
from modelgraft.kernel.words.graph import GraphSpec, NodeSpec, Ref, Wire
from modelgraft.kernel.words.kinds import Component
from modelgraft.kernel.words.order import find_cycles
from modelgraft.kernel.words.ports import BATCH, DTYPE_FAMILIES, Axis, ListOf, Port, PortType, Tensor


def find_components(
    graph: GraphSpec, problems: Collector, advice: Advice
) -> dict[str, tuple[tuple[Component, ...], tuple[Component, ...]]]:
    """The components that each node may be, and those of its adapters; nodes with an unknown one are left out and noted.

    `use: llm/causal | llm/seq2seq` names two: the node becomes the first that its source is made for.
    """
    found: dict[str, tuple[tuple[Component, ...], tuple[Component, ...]]] = {}
    for name, spec in graph.nodes.items():
        hosts = [use.strip() for use in spec.use.value.split("|")] if isinstance(spec.use.value, str) else [spec.use.value]
        uses = [*((host, spec.use) for host in hosts), *((adapter.use.value, adapter.use) for adapter in spec.adapters)]
        components = [graph.registry.find(id) if isinstance(id, str) else None for id, _ in uses]
        for (id, use), component in zip(uses, components, strict=True):
            if component is None:
                sentence, hint = advice.missing(id, graph.registry)
                problems.add("unknown-component", f"{name}: {sentence}", place=use.origin.place or spec.place, hint=hint, node=name)
        known = [component for component in components if component is not None]
        split = len(hosts)
        if len(known) == len(uses) and _are_in_their_place(spec, known[:split], known[split:], problems):
            found[name] = (tuple(known[:split]), tuple(known[split:]))
    return found


def _are_in_their_place(spec: NodeSpec, hosts: list[Component], grafts: list[Component], problems: Collector) -> bool:
    """An adapter is grafted into a node, everything else is a node."""
    lost = [host for host in hosts if host.kind == "adapter"]
    for host in lost:
        found = f"{spec.name}: {host.id} is an adapter, which works inside another node"
        hint = f"write it at that node: adapters: [{{use: {host.id}}}]"
        problems.add("adapter-misplaced", found, place=spec.use.origin.place or spec.place, node=spec.name, hint=hint)
    for adapter, graft in zip(spec.adapters, grafts, strict=True):
        if graft.kind != "adapter":
            lost.append(graft)
            found = f"{spec.name}: {graft.id} is no adapter but of kind {graft.kind}"
            problems.add("adapter-misplaced", found, place=adapter.place, node=spec.name, hint="make it a node of its own, and wire it")
        elif graft.hosts and not any(host.id in graft.hosts for host in hosts):
            lost.append(graft)
            found = f"{spec.name}: {graft.id} cannot be grafted into {' | '.join(host.id for host in hosts)}"
            hint = f"it can be grafted into {' or '.join(graft.hosts)}"
            problems.add("adapter-misplaced", found, place=adapter.place, node=spec.name, hint=hint)
    return not lost


def refuse_host(spec: NodeSpec, host: Component, grafts: tuple[Component, ...], problems: Collector) -> None:
    """Note adapters that cannot be grafted into what a node of several components has become by its source."""
    for adapter, graft in zip(spec.adapters, grafts, strict=True):
        if graft.hosts and host.id not in graft.hosts:
            came = f", which `{spec.use.value}` is with the source {spec.source.value}" if spec.source is not None else ""
            found = f"{spec.name}: {graft.id} cannot be grafted into {host.id}{came}"
            hint = f"it can be grafted into {' or '.join(graft.hosts)}: name a source that is one"
            problems.add("adapter-misplaced", found, place=adapter.place, node=spec.name, hint=hint)


def wire_names(graph: GraphSpec, problems: Collector) -> None:
    """Check what the names alone tell: references, shares, cycles and that there is an output."""
    for holder, ref, place in references(graph):
        problem = _lost(graph, ref)
        if problem is not None:
            code, sentence = problem
            problems.add(code, f"{holder}: {sentence}", place=ref.place or place, node=holder if holder in graph.nodes else "")
    _check_shares(graph, problems)
    for cycle in find_cycles({name: spec.feeders & graph.nodes.keys() for name, spec in graph.nodes.items()}):
        path = " -> ".join([*cycle, cycle[0]])
        hint = "a graph has no loops; what must repeat lives inside a component"
        problems.add("cycle", f"these nodes wait for each other: {path}", place=graph.nodes[cycle[0]].place, hint=hint, node=cycle[0])
    if not graph.outputs and "unused" not in graph.allow:
        problems.add("no-outputs", "the graph has no outputs, so nothing can be asked of it", hint="write outputs: {NAME: node.port}")


def references(graph: GraphSpec) -> Iterator[tuple[str, Ref, Place | None]]:
    """Every reference, with what holds it and where that stands."""
    for name, spec in graph.nodes.items():
        for ref in spec.references:
            yield name, ref, spec.place
    for name, ref in graph.outputs.items():
        yield f"output '{name}'", ref, None


def _lost(graph: GraphSpec, ref: Ref) -> tuple[str, str] | None:
    """What is wrong with a reference: code and sentence."""
    if ref.is_input:
        if ref.port in graph.inputs or (not ref.port and len(graph.inputs) == 1):
            return None
        if not ref.port:
            return "ambiguous-output", f"'inputs' alone names no input; write inputs.NAME with one of: {choices(graph.inputs)}"
        sentence = f"the graph has no input '{ref.port}'; it has: {choices(graph.inputs)}. {nearest(ref.port, graph.inputs)}"
        return "unknown-input", sentence.rstrip()
    if ref.node in graph.nodes:
        return None
    if ref.node in graph.inputs:
        return "unknown-node", f"there is no node '{ref.node}', but an input of that name: write inputs.{ref.node}"
    sentence = f"there is no node '{ref.node}'; there are: {choices(graph.nodes)}. {nearest(ref.node, graph.nodes)}"
    return "unknown-node", sentence.rstrip()


def _quoted(sentence: str) -> str:
    return sentence.split("'")[1] if "'" in sentence else ""


def _check_shares(graph: GraphSpec, problems: Collector) -> None:
    for name, spec in graph.nodes.items():
        if spec.share is None:
            continue
        other, place = graph.nodes.get(str(spec.share.value)), spec.share.origin.place or spec.place
        if other is None:
            inside = [node for node in graph.nodes if node.startswith(f"{spec.share.value}/")]
            what = "which is a whole graph; name one of its nodes" if inside else "which is no node; there are"
            sentence = f"{name} shares the weights of '{spec.share.value}', {what}: {choices(inside or graph.nodes)}."
            problems.add("unknown-node", f"{sentence} {nearest(str(spec.share.value), graph.nodes)}".rstrip(), place=place, node=name)
        elif other.name == name or other.share is not None:
            end = "itself" if other.name == name else f"{other.name}, which shares those of another node"
            found, hint = f"{name} shares the weights of {end}", "name the node that owns them"
            problems.add("share-mismatch", found, place=place, node=name, hint=hint)
        elif _ids(other) != _ids(spec):
            found = f"{name} is a {spec.use.value} and shares the weights of {other.name}, a {other.use.value}"
            problems.add("share-mismatch", found, place=place, node=name, hint="only nodes of the same component can share weights")
        elif spec.source is not None and (other.source is None or spec.source.value != other.source.value):
            owned = f"which are from {other.source.value}" if other.source is not None else "which are new"
            found = f"{name} is from {spec.source.value} and shares the weights of {other.name}, {owned}: only one of the two can count"
            problems.add("share-mismatch", found, place=place, node=name, hint="remove `from:` or `share:`")


def _ids(spec: NodeSpec) -> list[str]:
    """The components that a node may be, without their versions."""
    return [use.strip().partition("@")[0] for use in str(spec.use.value).split("|")]


# -- with ports ---------------------------------------------------------------------------------------------------------


class PortWiring:
    """Joins the wires of drafts to ports; fills `wired`, `lists`, `chosen` and `when` of each draft."""

    def __init__(self, graph: GraphSpec, drafts: Mapping[str, Draft], problems: Collector, advice: Advice) -> None:
        self.graph, self.drafts, self.problems, self.advice = graph, drafts, problems, advice

    def run(self) -> dict[str, Ref]:
        """Wire every draft; give the outputs of the graph with their port names filled in."""
        for draft in self.drafts.values():
            self._wire(draft)
        outputs = {name: self._resolve(ref, f"output '{name}'", "", ref.place) for name, ref in self.graph.outputs.items()}
        return {name: ref for name, ref in outputs.items() if ref is not None}

    def giving(self, ref: Ref) -> Port | None:
        """The port at the giving end of a resolved reference."""
        if ref.is_input:
            given = self.graph.inputs.get(ref.port)
            return given.port if given else None
        draft = self.drafts.get(ref.node)
        return draft.out_ports.get(ref.port) if draft else None

    def _wire(self, draft: Draft) -> None:
        draft.wired, draft.chosen, draft.lists, draft.when = {}, {}, set(), None
        known, meant = draft.in_ports, set[str]()
        for name in [*(name for name in known if name in draft.wires), *sorted(draft.wires.keys() - known)]:  # not as written
            wire = draft.wires[name]
            if name not in known:
                meant.add(_quoted(nearest(name, known)))
                sentence = f"{draft.name} has no input '{name}'; it has: {choices(known, sort=False)}. {nearest(name, known)}".rstrip()
                self.problems.add("unknown-port", sentence, place=wire.place, node=draft.name, port=name)
                continue
            refs = tuple(self._resolve(ref, draft.name, name, ref.place or wire.place) for ref in wire.refs)
            whole = tuple(ref for ref in refs if ref is not None)
            if len(whole) == len(refs):
                self._join(draft, name, wire, whole)
        for name, port in known.items():
            if not port.optional and name not in draft.wires and name not in meant:
                found = f"{draft.name} needs its input '{name}' ({port})"
                hint = self.advice.feeding(self.graph, self.drafts, f"{draft.name}.{name}", port)
                self.problems.add("missing-input", found, place=draft.spec.place, node=draft.name, port=name, hint=hint)
        if draft.spec.when is not None:
            self._route(draft, draft.spec.when)

    def _resolve(self, ref: Ref, holder: str, port: str, place: Place | None) -> Ref | None:
        """Fill in the only output, or check the named one. None when it is wrong or belongs to a node that is not known."""
        ports = self.graph.inputs if ref.is_input else self.drafts[ref.node].out_ports if ref.node in self.drafts else None
        if ports is None:
            return None
        node = holder if holder in self.drafts else ""
        if ref.port in ports:
            return ref
        if not ref.port and len(ports) == 1:
            return Ref(ref.node, next(iter(ports)), ref.place)
        if ref.is_input:
            return None  # the names alone told it
        if not ref.port:
            listed = ", ".join(f"{ref.node}.{name}" for name in ports)
            sentence = f"{holder}: {ref.node} has {len(ports)} outputs; say which: {listed or 'none'}"
            self.problems.add("ambiguous-output", sentence, place=place, node=node, port=port)
        else:
            sentence = f"{ref.node} has no output '{ref.port}'; it has: {choices(ports, sort=False)}. {nearest(ref.port, ports)}".rstrip()
            self.problems.add("unknown-port", sentence, place=place, node=node, port=port)
        return None

    def _join(self, draft: Draft, name: str, wire: Wire, refs: tuple[Ref, ...]) -> None:
        port, types = draft.in_ports[name], [self._type(ref) for ref in refs]
        place, end = wire.place, f"{draft.name}.{name}"
        lists = [type_ for type_ in port.types if isinstance(type_, ListOf)]
        if wire.is_list and not lists:
            found = f"{end} takes one value ({port}), but a list of {len(refs)} is wired"
            first = f"{name}: {refs[0]}" if refs else f"{name}: node.port"
            self.problems.add("list-for-one", found, place=place, node=draft.name, port=name, hint=f"write {first}")
            return
        accepted = Port(tuple(type_.item for type_ in lists)) if wire.is_list else port
        for ref, given in zip(refs, types, strict=True):
            chosen = choose(given, accepted)
            if chosen is None:
                self._refuse(draft, name, wire, ref, given, port)
                return
            draft.chosen[name] = ListOf(chosen) if wire.is_list else chosen
        draft.wired[name] = refs
        if wire.is_list:
            draft.lists.add(name)

    def _refuse(self, draft: Draft, name: str, wire: Wire, ref: Ref, given: PortType, port: Port) -> None:
        place, end = ref.place or wire.place, f"{draft.name}.{name}"
        item = next((type_ for type_ in port.types if isinstance(type_, ListOf) and choose(given, Port((type_.item,)))), None)
        code = "list-for-one"
        if item is not None and not wire.is_list:
            code, hint = "one-for-list", f"write {name}: [{ref}]"
            found = f"{ref} gives one value ({given}), but {end} takes a list ({port})"
        elif wire.is_list and choose(given, port) is not None:
            found, hint = f"{ref} gives a list ({given}) already, and {end} is fed by a list of such lists", f"write {name}: {ref}"
        else:
            hint = self.advice.makers(self.graph.registry, given, port)
            if isinstance(given, ListOf) and choose(given.item, port) is not None:
                found = f"{ref} gives a list ({given}), but {end} takes one value ({port})"
            else:
                code, found = "modality-mismatch", f"{ref} gives {given}, but {end} takes {port}"
        self.problems.add(code, found, place=place, node=draft.name, port=name, hint=hint)

    def _route(self, draft: Draft, when: Ref) -> None:
        ref = self._resolve(when, draft.name, "when", when.place or draft.spec.place)
        if ref is None:
            return
        given = self._type(ref)
        axis = given.axes[0] if isinstance(given, Tensor) and len(given.axes) == 1 else Axis((("no axis alone", 1),))
        is_of_batch = axis is None or axis.symbol == BATCH or axis.size is not None  # one entry a record; the size is compared later
        if isinstance(given, Tensor) and DTYPE_FAMILIES[given.dtype] <= DTYPE_FAMILIES["mask"] and is_of_batch:
            draft.when = ref
            return
        found = f"{draft.name} runs when {ref}, which gives {given}; a route takes mask[batch]"
        self.problems.add("route-not-mask", found, place=when.place or draft.spec.place, node=draft.name)

    def _type(self, ref: Ref) -> PortType:
        port = self.giving(ref)
        assert port is not None  # only called for resolved references
        return port.type
