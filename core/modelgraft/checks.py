"""Checks a graph without loading anything: every port, dimension, value space and token count, in four phases.

    wiring   every name means something, every config holds together, every wire joins ports that can be joined
    fitting  the dimensions and dtypes of the whole graph have a solution
    spaces   both ends of each wire mean the same by their numbers
    budgets  each component reviews its own solved ports: context lengths, for example

A phase reports all its problems at once, and starts only when the one before is clean.
"""

from __future__ import annotations

from collections.abc import Mapping

from modelgraft.configs import Configs
from modelgraft.drafts import Draft, Part
from modelgraft.errors import Collector, Place
from modelgraft.graph import Adapter, Graph, GraphInput, Node, Ref, SolvedGraph
from modelgraft.misfits import Misfits
from modelgraft.order import topological
from modelgraft.ports import Axis, ListOf, Modality, Port, PortType, Tensor
from modelgraft.spaces import check_spaces
from modelgraft.unify import Unified, Unifier, input_symbol
from modelgraft.wiring import PortWiring, find_components, wire_names


def solve(graph: Graph, *, offline: bool = True) -> SolvedGraph:
    """Check a graph and make every port and config value concrete.

    offline  look at sources on this machine and at recorded configs alone, never on the network

    Raises GraphError with every problem of the first phase that has any.
    """
    drafts, outputs, configs = _wire(graph, offline=offline)
    drafts = {name: drafts[name] for name in sorted(drafts)}
    unified = _fit(graph, drafts, configs)
    problems = Collector()
    check_spaces(drafts, problems)
    problems.finish()
    nodes = {name: _node(draft, unified) for name, draft in drafts.items()}
    for draft in drafts.values():
        _review(draft, nodes[draft.name], problems)
    problems.finish()
    inputs = {name: _solved_input(given, unified) for name, given in sorted(graph.inputs.items())}
    return SolvedGraph(graph, nodes, inputs, outputs)


def _wire(graph: Graph, *, offline: bool) -> tuple[dict[str, Draft], dict[str, Ref], Configs]:
    problems = Collector()
    components = find_components(graph, problems)
    wire_names(graph, problems)
    configs = Configs(graph, problems, offline)
    drafts: dict[str, Draft] = {}
    for name, (component, adapters) in components.items():
        spec = graph.nodes[name]
        share = graph.nodes.get(str(spec.share.value)) if spec.share is not None else None
        draft = configs.draft(spec, component, adapters, share if share is not spec else None)
        if draft is not None:
            drafts[name] = draft
    outputs = PortWiring(graph, drafts, problems).run()
    problems.finish()
    return drafts, outputs, configs


def _fit(graph: Graph, drafts: Mapping[str, Draft], configs: Configs) -> Unified:
    order = topological({name: _feeders(draft) for name, draft in drafts.items()})
    unifier = Unifier(drafts, order, graph.inputs, configs)
    unified = unifier.run()
    Misfits(graph, drafts, unifier.parts, unified, configs.problems).report()
    configs.problems.finish()
    return unified


def _feeders(draft: Draft) -> set[str]:
    refs = [ref for refs in draft.wired.values() for ref in refs]
    return {ref.node for ref in (*refs, *([draft.when] if draft.when else [])) if not ref.is_input}


# -- what comes out -----------------------------------------------------------------------------------------------------


def _node(draft: Draft, unified: Unified) -> Node:
    spec, host = draft.spec, draft.host
    in_ports = {}
    for name, port in draft.in_ports.items():
        types = (draft.chosen[name],) if name in draft.chosen else port.types
        in_ports[name] = _concrete(Port(types, port.optional, port.space, port.doc), draft.owners[name], unified)
    return Node(
        name=draft.name,
        component=host.component,
        config=host.config,
        source=host.source,
        in_ports=in_ports,
        out_ports={name: _concrete(port, host, unified) for name, port in draft.out_ports.items()},
        wired=dict(draft.wired),
        lists=frozenset(draft.lists),
        frozen=spec.frozen,
        when=draft.when,
        lazy=spec.lazy,
        share=draft.share,
        adapters=tuple(_adapter(part) for part in draft.adapters),
        runtime={key: value.value for key, value in spec.runtime.items()},
        origins=dict(host.origins),
        place=spec.place,
    )


def _adapter(part: Part) -> Adapter:
    return Adapter(part.component, part.config, part.source, tuple(part.face.declared.inputs))


def _concrete(port: Port, part: Part, unified: Unified) -> Port:
    """A port with every known number in place, and `...` replaced by the axes it stands for."""
    values = {name: value for name in part.face.names if (value := unified.dims.value(part.symbols[name])) is not None}
    rest = unified.rest.get(part.scope)
    return Port(tuple(_concrete_type(type_, values, rest, unified) for type_ in port.types), port.optional, port.space, port.doc)


def _concrete_type(type_: PortType, values: Mapping[str, int], rest: tuple[Axis | None, ...] | None, unified: Unified) -> PortType:
    if isinstance(type_, Modality):
        return type_
    if isinstance(type_, ListOf):
        item = _concrete_type(type_.item, values, rest, unified)
        return ListOf(item)
    bound = type_.bind(values)
    if rest is None or None not in bound.axes:
        return bound
    at = bound.axes.index(None)
    covered = tuple(axis if axis is None else _local(axis, unified) for axis in rest)
    return Tensor(bound.dtype, (*bound.axes[:at], *covered, *bound.axes[at + 1 :]))


def _local(axis: Axis, unified: Unified) -> Axis:
    """An axis of another node, read here: its number, or its name without the node."""
    known = axis.bind({name: value for name in axis.names if (value := unified.dims.value(name)) is not None})
    return known.rename({name: name.rpartition(".")[2] for name in known.names})


def _solved_input(given: GraphInput, unified: Unified) -> GraphInput:
    names = [name for type_ in given.port.types if isinstance(type_, Tensor) for name in type_.names]
    values = {name: value for name in names if (value := unified.dims.value(input_symbol(name))) is not None}
    return GraphInput(given.name, given.port.bind(values), given.default, given.has_default, given.doc, given.place)


def _review(draft: Draft, node: Node, problems: Collector) -> None:
    for part in draft.parts:
        try:
            found = list(part.config.review(node))
        except Exception as error:  # noqa: BLE001 the review is code of a plugin, which may raise anything
            sentence = f"plugin '{part.component.plugin}': {part.component.id} could not review {node.name}: {type(error).__name__}: {error}"
            problems.add("component-failed", sentence, place=node.place, node=node.name, hint="this is a defect of the plugin")
            continue
        for code, sentence, hint in found:
            problems.add(code, sentence, place=_place(part, node), hint=hint, node=node.name)


def _place(part: Part, node: Node) -> Place:
    return part.place or node.place
