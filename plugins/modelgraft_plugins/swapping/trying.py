"""Everything that is installed, tried in place of a node: what fits, what it changes, and why the rest does not fit."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import modelgraft
from modelgraft import GraphError, ModelgraftError, ModelgraftWarning
from modelgraft.commands import GRAPH_PREFIX, for_command, shipped_graphs
from modelgraft.plugin import InputError

if TYPE_CHECKING:
    from modelgraft import Graph
    from modelgraft.commands import Registry
    from modelgraft.plugin import Plan

CONNECTORS = ("projector", "resampler")  # either may stand where the other does
FOLDER = "connectors"  # of the shipped graphs that stand as nodes between an encoder and a language model


@dataclass(frozen=True, slots=True)
class Fit:
    """What a graph is with something in place of a node.

    text        as `--set NODE=TEXT` has it; "" for the graph as it is
    component   what stands there then;  parameters, bytes  of the whole graph, None where a part is not known
    tokens      how many embeddings its language models read, else how many the node gives; None where that is open
    follows     what else is done, in sentences
    reason      why it does not fit, "" where it does;  way  a way out of that, where one is known
    """

    text: str
    component: str = ""
    parameters: int | None = None
    bytes: int | None = None
    tokens: int | None = None
    follows: tuple[str, ...] = ()
    reason: str = ""
    way: str = ""


def tried(graph: str, node: str, settings: Mapping[str, Any], registry: Registry) -> list[Fit]:  # Any: as `load` takes params
    """Try every candidate: the graph as it is first, then what fits by its parameters, then what does not.

    Raises what `check` raises for the graph as it is.
    """
    loaded = modelgraft.load(graph, params=settings, registry=registry)
    plan = modelgraft.plan(loaded)
    component = plan.nodes[node].node.component.id if node in plan.nodes else "a graph"
    found = [_fit(graph, node, text, readers, settings, registry) for text, readers in candidates(loaded, plan, node)]
    found.sort(key=lambda fit: (bool(fit.reason), fit.parameters is None, fit.parameters or 0, fit.text))
    return [_of(plan, node, "", component=component), *found]


def candidates(graph: Graph, plan: Plan, node: str) -> Iterator[tuple[str, set[str]]]:
    """What may be tried, and the components that read it, of a preset: of the kind of the node; and graphs that stand between others."""
    step = plan.nodes.get(node)
    kinds = CONNECTORS if step is None or step.node.component.kind in CONNECTORS else (step.node.component.kind,)
    installed = graph.registry.components.items()
    of_kind = {
        id for id, component in installed if component.kind in kinds and not getattr(component.config, "sizes_only", False)
    }  # what looks at sizes alone would fit, and connect nothing
    for preset in modelgraft.presets(registry=graph.registry):
        if readers := {use.component for use in preset.uses} & of_kind:
            yield preset.source, readers
    yield from ((id, set()) for id in sorted(of_kind - ({step.node.component.id} if step is not None else set())))
    if kinds == CONNECTORS:
        folder = shipped_graphs() / FOLDER
        yield from ((f"{GRAPH_PREFIX}{FOLDER}/{path.stem}", set()) for path in sorted(folder.glob("*.yaml")))


def _fit(graph: str, node: str, text: str, readers: set[str], settings: Mapping[str, Any], registry: Registry) -> Fit:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", ModelgraftWarning)
        try:
            plan = modelgraft.plan(modelgraft.load(graph, params={**settings, node: text}, registry=registry))
        except ModelgraftError as error:
            reason, way = _reason(error)
            return Fit(text, reason=reason, way=way)
    fit = _of(plan, node, text, follows=tuple(str(one.message) for one in told))
    if readers and fit.component not in readers:
        return Fit(text, reason=f"it is made for {', '.join(sorted(readers))}, not for {fit.component}")
    return fit


def _of(plan: Plan, node: str, text: str, *, component: str = "", follows: tuple[str, ...] = ()) -> Fit:
    step = plan.nodes.get(node)
    component = component or (step.node.component.id if step is not None else text.removeprefix(GRAPH_PREFIX))
    return Fit(text, component, plan.totals.parameters, plan.totals.bytes, _tokens(plan, node), follows)


def _tokens(plan: Plan, node: str) -> int | None:
    """The embeddings that language models read; of a graph without one, the vectors that the node gives."""
    read = [
        port.tensor.axes[-2]
        for step in plan.steps
        if step.node.component.kind == "llm"
        for name, port in step.node.in_ports.items()
        if name in step.node.wired and port.tensor is not None and port.tensor.dtype == "float" and len(port.tensor.axes) == 3
    ]
    given = plan.nodes[node].node.out_ports.values() if node in plan.nodes else ()
    rows = read or [port.tensor.axes[-2] for port in given if port.tensor is not None and len(port.tensor.axes) == 3][:1]
    sizes = [axis.size if axis is not None else None for axis in rows]
    return None if None in sizes or not sizes else sum(size for size in sizes if size is not None)


def _reason(error: ModelgraftError) -> tuple[str, str]:
    """The first problem, and its way out."""
    if isinstance(error, GraphError) and error.noted:
        problem = error.noted[0]
        return for_command(problem.found), for_command(problem.hint)
    return for_command(error.unworded if isinstance(error, InputError) else str(error)), ""
