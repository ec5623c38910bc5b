"""Checks a graph without loading anything: every port, dimension, value space and token count, in three phases.

    wiring   every name means something, every config holds together, every wire joins ports that can be joined
    fitting  the dimensions and dtypes of the whole graph have a solution, and both ends of each wire mean the same by their numbers
    budgets  each component reviews its own solved ports: context lengths, for example; then whoever is asked reviews the whole

A phase reports all its problems at once, and starts only when the one before is clean. What is left over (nodes, inputs
and params that nothing uses) is held back while anything is wrong with the wiring, because it may be what a wrong name was
meant to be; it keeps no other phase from being looked at, and is told together with what that finds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from modelgraft.kernel.checking.adviser import Advice
from modelgraft.kernel.checking.concrete import concrete_input, concrete_port
from modelgraft.kernel.checking.configs import Configs
from modelgraft.kernel.checking.drafts import Draft, Part
from modelgraft.kernel.checking.following import fill_types
from modelgraft.kernel.checking.leftover import left_over
from modelgraft.kernel.checking.misfits import Misfits
from modelgraft.kernel.checking.placement import check_placement
from modelgraft.kernel.checking.spaces import check_spaces
from modelgraft.kernel.checking.unify import Unified, Unifier
from modelgraft.kernel.checking.wiring import PortWiring, find_components, refuse_host, wire_names
from modelgraft.kernel.words.errors import Collector, GraphError, Problem, raise_if_any, reading_order
from modelgraft.kernel.words.graph import Adapter, GraphSpec, Node, Ref, SolvedGraph
from modelgraft.kernel.words.guard import contained, said
from modelgraft.kernel.words.kinds import defect_of
from modelgraft.kernel.words.source import NoSources, Sources


def solve(graph: GraphSpec, *, sources: Sources | None = None, advice: Advice | None = None) -> SolvedGraph:
    """Check a graph and make every port and config value concrete.

    sources  who finds what `from:` names; None: nobody, and a graph that names a source has a problem
    advice   who explains problems and warns; None: nobody, and problems say what stands at both ends and no more

    Raises GraphError with every problem of the first phase that has any.
    """
    asked = advice or Advice()
    drafts, outputs, configs = _wire(graph, sources or NoSources(), asked)
    spare = left_over(graph)
    try:
        solved = _solve_wired(graph, drafts, outputs, configs, asked)
    except _WiresLostError:
        raise
    except GraphError as error:
        raise_if_any([*error.noted, *spare])
        raise
    raise_if_any(spare)
    return solved


class _WiresLostError(GraphError):
    """A config that neighbours filled has changed ports, and wires do not fit them any more."""


def _solve_wired(graph: GraphSpec, drafts: dict[str, Draft], outputs: dict[str, Ref], configs: Configs, advice: Advice) -> SolvedGraph:
    drafts = {name: drafts[name] for name in sorted(drafts)}  # nothing that is made of them depends on the order in the file
    unified = _fit(graph, drafts, configs, advice)
    problems = Collector()
    nodes = {name: _node(draft, unified) for name, draft in drafts.items()}
    for draft in drafts.values():
        _review(draft, nodes[draft.name], problems)
    for review in advice.reviews:
        problems.problems.extend(review(nodes))
    problems.finish()
    inputs = {name: concrete_input(given, unified) for name, given in sorted(graph.inputs.items())}
    return SolvedGraph(graph, _warned(nodes, advice), inputs, outputs, tuple(advice.forecasts(graph, nodes)))


def _warned(nodes: Mapping[str, Node], advice: Advice) -> dict[str, Node]:
    """The nodes, each with what there is to warn of beside what its components said."""
    told: dict[str, tuple[Problem, ...]] = {}
    for problem in advice.warnings(nodes):
        told[problem.node] = (*told.get(problem.node, ()), problem)
    return {name: replace(node, remarks=(*node.remarks, *told[name])) if name in told else node for name, node in nodes.items()}


def _wire(graph: GraphSpec, sources: Sources, advice: Advice) -> tuple[dict[str, Draft], dict[str, Ref], Configs]:
    problems = Collector()
    components = find_components(graph, problems, advice)
    wire_names(graph, problems)
    check_placement(graph, problems)
    configs = Configs(graph, problems, sources)
    drafts: dict[str, Draft] = {}
    for name in sorted(components, key=lambda name: (reading_order(graph.nodes[name].place), name)):
        hosts, adapters = components[name]
        spec = graph.nodes[name]
        component = configs.pick(spec, hosts)
        refuse_host(spec, component, adapters, problems)
        share = graph.nodes.get(str(spec.share.value)) if spec.share is not None else None
        draft = configs.draft(spec, component, adapters, share if share is not spec else None)
        if draft is not None:
            drafts[name] = draft
    drafts = dict(sorted(fill_types(graph, drafts, configs).items()))
    outputs = PortWiring(graph, drafts, problems, advice).run()
    problems.finish()
    return drafts, outputs, configs


def _fit(graph: GraphSpec, drafts: Mapping[str, Draft], configs: Configs, advice: Advice) -> Unified:
    problems = configs.problems

    def rewire() -> None:
        PortWiring(graph, drafts, problems, advice).run()
        if problems.problems:
            raise _WiresLostError(problems.problems)

    unified = Unifier(graph, drafts, configs, rewire).run()
    Misfits(unified, problems, advice).report()
    check_spaces(drafts, problems, advice)
    problems.finish()
    return unified


# -- what comes out -----------------------------------------------------------------------------------------------------


def _node(draft: Draft, unified: Unified) -> Node:
    spec, host = draft.spec, draft.host
    in_ports = {}
    for name, port in draft.in_ports.items():
        types = (draft.chosen[name],) if name in draft.chosen else port.types
        in_ports[name] = concrete_port(port if types == port.types else replace(port, types=types), draft.owners[name], unified)
    return Node(
        name=draft.name,
        component=host.component,
        config=host.config,
        source=host.source,
        in_ports=in_ports,
        out_ports={name: concrete_port(port, host, unified) for name, port in draft.out_ports.items()},
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
        remarks=tuple(dict.fromkeys(remark for part in draft.parts for remark in part.remarks)),
    )


def _adapter(part: Part) -> Adapter:
    return Adapter(part.component, part.config, part.source, tuple(part.face.declared.inputs), dict(part.origins))


def _review(draft: Draft, node: Node, problems: Collector) -> None:
    for part in draft.parts:
        try:
            with contained():
                found = [(code, sentence, hint) for code, sentence, hint in part.config.review(node)]
        except Exception as error:  # noqa: BLE001 the review is code of a plugin, which may raise anything
            sentence = f"plugin '{part.component.plugin}': {part.component.id} could not review {node.name}: {said(error)}"
            problems.add("component-failed", sentence, place=node.place, node=node.name, hint=defect_of(part.component, error))
            continue
        for code, sentence, hint in found:
            problems.add(code, sentence, place=part.place, hint=hint, node=node.name)
