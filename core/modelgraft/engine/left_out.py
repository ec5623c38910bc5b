"""What a run may go without: what a node gives that fails and is marked so, and inputs that a record may leave out."""

from __future__ import annotations

from collections.abc import Mapping

from modelgraft.kernel.words.graph import GraphInput, Node, Ref, SolvedGraph


def is_marked(node: Node, graph: SolvedGraph) -> bool:
    """Whether a run goes on without what a node gives, where that fails."""
    if node.parts:
        return is_marked(node.parts[0], graph)
    whole = graph.graph.runtime.get("failure")
    return bool(node.runtime.get("failure", "stop" if whole is None else whole.value) == "mark")


def needs_what_may_lack(node: Node, inputs: Mapping[str, GraphInput]) -> frozenset[Ref]:
    """The inputs of the graph that a run may leave out, and without which this node cannot run, or runs with fewer of a list."""
    needed = (ref for port, refs in node.wired.items() if not node.in_ports[port].optional or port in node.lists for ref in refs)
    return frozenset(ref for ref in needed if ref.is_input and ref.port in inputs and _may_lack(inputs[ref.port]))


def _may_lack(item: GraphInput) -> bool:
    return item.default is None and (item.port.optional or item.has_default)
