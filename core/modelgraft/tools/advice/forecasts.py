"""What a run would refuse as things stand here, and an option of the run may change: warnings of the check and the plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from modelgraft.kernel.words.backends import UNCHOSEN, USUAL
from modelgraft.kernel.words.errors import Place, Problem, choices
from modelgraft.kernel.words.graph import GraphSpec, Node
from modelgraft.kernel.words.source import NO_WEIGHTS_HINT
from modelgraft.kernel.words.wording import option


def forecasts(graph: GraphSpec, nodes: Mapping[str, Node]) -> tuple[Problem, ...]:
    """One warning for each, in the order of the file."""
    found = [problem for node in nodes.values() for part in (_weights, _export, _precision) for problem in part(graph, node)]
    return tuple(sorted(found, key=lambda problem: (problem.place.line or 0) if problem.place else 0))


def _weights(graph: GraphSpec, node: Node) -> Iterator[Problem]:
    for name, source, index in node.opened_sources():
        if why := source.lacks_weights(offline=False):
            spec = graph.nodes[node.name]
            written = spec.source if index is None else spec.adapters[index].source
            place: Place | None = written.origin.place if written is not None else None
            yield Problem("no-weights", f"{name}: {why}", place or node.place, NO_WEIGHTS_HINT, node=node.name)


def _asked(graph: GraphSpec, node: Node, what: str) -> str | None:
    """What the document asks for; None when it leaves it to the run."""
    whole = graph.runtime.get(what)
    return next((str(value) for value in (node.runtime.get(what), whole.value if whole is not None else None) if value is not None), None)


def _export(graph: GraphSpec, node: Node) -> Iterator[Problem]:
    backend = _asked(graph, node, "backend")
    card = graph.registry.backends.get(backend or UNCHOSEN)
    if card is not None and card.fuses and node.component.module is not None and not node.component.exportable:
        found = f"{node.name}: {node.component.id} cannot be exported, and {backend} runs exports alone"
        hint = f"write runtime: {{backend: torch}} at {node.name}, or let it stay there with a warning: {option('fallback', 'torch')}"
        yield Problem("not-exportable", found, node.place, hint, node=node.name)


def _precision(graph: GraphSpec, node: Node) -> Iterator[Problem]:
    """As the planner refuses it, unless an option changes the backend or the precision."""
    backend = _asked(graph, node, "backend")
    backend = USUAL if backend in (None, UNCHOSEN) else str(backend)
    precision = _asked(graph, node, "precision")
    what, wanted = ("precision", precision) if precision else ("dtype", _asked(graph, node, "dtype"))
    backends = graph.registry.backends
    known = backends[backend].precisions if backend in backends else ()
    if node.component.module is None or not known or wanted in (None, UNCHOSEN, *known):
        return
    found = f"{node.name}: the {backend} backend has no {what} '{wanted}'; it has {choices(known)}"
    others = sorted((name for name, card in backends.items() if wanted in card.precisions), key=lambda name: (name != USUAL, name))
    hint = f"run it with {option('backend', others[0])}, or write another {what}" if others else f"write another {what}"
    place = next((value.origin.place for value in (graph.nodes[node.name].runtime.get(what), graph.runtime.get(what)) if value), None)
    yield Problem("wrong-value", found, place or node.place, hint, node=node.name)
