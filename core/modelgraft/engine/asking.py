"""Branches that a record asks any number of times, each ask a row of their batch.

An output port with `several` gives for each record any number of values: the asks of a branch. What is wired to it, and what follows from
that, runs once for each of them, all asks of all records in one call, until an input port with `several` takes what each record has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from modelgraft.kernel.words.graph import Node, Ref
from modelgraft.kernel.words.order import topological
from modelgraft.kernel.words.ports import ListOf, Port
from modelgraft.records.batch import is_whole

Branch = tuple[str, str]  # the node that gives asks, and the name of what is asked for


def branches_of(nodes: Mapping[str, Node]) -> dict[str, frozenset[Branch]]:
    """The branches that each node stands in; of those outside of all there is no entry."""
    if not any(port.several for node in nodes.values() for port in node.out_ports.values()):
        return {}
    found: dict[str, frozenset[Branch]] = {}
    for name in topological({name: node.feeders & nodes.keys() for name, node in nodes.items()}):
        within = frozenset(branch for ref in _rows_of(nodes[name]) for branch in branches_at(ref, nodes, found))
        if within:
            found[name] = within
    return found


def branches_at(ref: Ref, nodes: Mapping[str, Node], found: Mapping[str, frozenset[Branch]]) -> frozenset[Branch]:
    """The branches that a value stands in; `found` are those of nodes. What is not made of rows stands in none."""
    node = nodes.get(ref.node)
    if node is None or ref.is_input:
        return frozenset()
    port = node.out_ports[ref.port or next(iter(node.out_ports))]
    if port.several:
        return frozenset([(ref.node, port.several)])
    return frozenset() if is_whole(port.type) else found.get(ref.node, frozenset())


def asked_by(nodes: Mapping[str, Node]) -> dict[str, tuple[str, ...]]:
    """What each node within a branch runs once for, such as "signals.image": the node that asks, and the name of what it asks for."""
    return {name: tuple(sorted(".".join(branch) for branch in branches)) for name, branches in branches_of(nodes).items()}


def outputs_of(nodes: Mapping[str, Node], ref: Ref, port: Port, within: Mapping[str, frozenset[Branch]]) -> Port:
    """The port of an output of the graph: in a branch that records ask several times, a list; `within` as `branches_of` gives it."""
    return listed(port) if branches_at(ref, nodes, within) else port


def listed(port: Port) -> Port:
    """The port of an output of the graph for one within a branch: of each record the list of what it has."""
    return Port(tuple(map(ListOf, port.types)), port.optional, port.space, port.doc, several="*")


def _rows_of(node: Node) -> Iterator[Ref]:
    """What decides for which rows a node runs: all that feeds it, but what it takes as lists of a record."""
    for port, refs in node.wired.items():
        if not node.in_ports[port].several:
            yield from refs
    if node.when is not None:
        yield node.when
