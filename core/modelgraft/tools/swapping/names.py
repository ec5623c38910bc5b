"""Which node of a graph a name means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelgraft.kernel.words.errors import GraphError, Problem, choices
from modelgraft.kernel.words.graph import GRAPH_PREFIX, GraphSpec
from modelgraft.kernel.words.kinds import Component


def written_nodes(spec: GraphSpec) -> Mapping[str, Any]:  # Any: items of a document
    """The nodes as the document has them, graphs that stand as nodes among them."""
    found = spec.document.root.value.get("nodes") if spec.document is not None else None
    return found.value if found is not None and isinstance(found.value, dict) else {}


def names_of(spec: GraphSpec) -> list[str]:
    """The nodes that can be named."""
    return list(written_nodes(spec))


def components_of(spec: GraphSpec, node: str) -> list[Component]:
    """What a node may be, as it is written: none for a graph, and for what is not installed."""
    form = spec.nodes.get(node)
    use = form.use.value if form is not None else ""
    if not isinstance(use, str) or use.startswith(GRAPH_PREFIX):
        return []
    found = [spec.registry.find(part.strip()) for part in use.split("|")]
    return [component for component in found if component is not None]


def node_named(name: str, spec: GraphSpec) -> str | None:
    """The node that a name means, None where it means none. Raises GraphError where it means several."""
    if name in written_nodes(spec):
        return name
    every = {node: components_of(spec, node) for node in written_nodes(spec)}
    of_kind = [node for node, found in every.items() if any(component.kind == name for component in found)]
    of_word = [node for node, found in every.items() if any(name in component.keywords for component in found)]
    for found in (of_kind, of_word):
        if len(found) == 1:
            return found[0]
        if found:
            text = f"the graph {spec.name} has {len(found)} nodes that '{name}' may mean: {choices(found, sort=False)}"
            raise GraphError(Problem("unknown-param", text, hint="name the node itself"))
    return None
