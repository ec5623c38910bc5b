"""Routes that contradict each other: nodes that no record can ever reach.

Of the masks that a component names in `one_of` exactly one is true for each record. A node behind one of them, and behind
another of the same router, never runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from modelgraft.kernel.words.errors import Problem
from modelgraft.kernel.words.graph import Node, Ref
from modelgraft.kernel.words.order import topological

MOST_WAYS = 64  # ways that are followed to one node: beyond that nothing is said
Way = frozenset[tuple[str, str]]  # the masks that must be true: (router, output)
ALWAYS: frozenset[Way] = frozenset([frozenset()])


def check_routes(nodes: Mapping[str, Node]) -> Iterator[Problem]:
    """Note every node that needs two masks of one router of which only one is ever true; of a chain the first."""
    if all(node.when is None for node in nodes.values()):
        return
    ways: dict[str, frozenset[Way] | None] = {}  # by node: the ways to it; None where they are too many to follow
    for name in topological({name: node.feeders for name, node in nodes.items()}):
        node = nodes[name]
        ways[name] = found = _ways_to(node, nodes, ways)
        if found is None or found:
            continue
        ways[name] = ALWAYS  # told once: what follows from it is not told again
        route = f"runs when {node.when}" if node.when is not None else "needs all its inputs"
        masks = {mask for ref in _feeding(node) for way in ways.get(ref.node) or () for mask in way}
        behind = " and ".join(sorted(f"{router}.{mask}" for router, mask in masks))
        sentence = f"{name} never runs: it {route}, and what feeds it comes by {behind}; for no record are all of them true"
        hint = "let its inputs come by the same way, or from before the ways part"
        yield Problem("never-runs", sentence, node.place, hint, node=name)


def _feeding(node: Node) -> list[Ref]:
    return [ref for refs in node.wired.values() for ref in refs]


def _needed(node: Node) -> list[Ref]:
    """What must be there for it to run: the first wire of each port that is not optional, and the route."""
    refs = [refs[0] for port, refs in node.wired.items() if not node.in_ports[port].optional and port not in node.lists]
    return [*refs, *([node.when] if node.when is not None else [])]


def _ways_to(node: Node, nodes: Mapping[str, Node], ways: Mapping[str, frozenset[Way] | None]) -> frozenset[Way] | None:
    found: frozenset[Way] | None = ALWAYS
    for ref in _needed(node):
        found = _both(found, _ways_of(ref, ways))
    for port in node.lists:
        if not node.in_ports[port].optional:
            found = _both(found, _any(_ways_of(ref, ways) for ref in node.wired[port]))
    if node.when is not None and not node.when.is_input and node.when.port in nodes[node.when.node].config.one_of():
        found = _both(found, frozenset([frozenset([(node.when.node, node.when.port)])]))
    return found if found is None else frozenset(way for way in found if not _contradicts(way))


def _ways_of(ref: Ref, ways: Mapping[str, frozenset[Way] | None]) -> frozenset[Way] | None:
    return ALWAYS if ref.is_input else ways[ref.node]


def _any(options: Iterable[frozenset[Way] | None]) -> frozenset[Way] | None:
    found: frozenset[Way] = frozenset()
    for option in options:
        if option is None:
            return None
        found |= option
    return found


def _both(one: frozenset[Way] | None, other: frozenset[Way] | None) -> frozenset[Way] | None:
    if one is None or other is None or len(one) * len(other) > MOST_WAYS:
        return None
    return frozenset(left | right for left in one for right in other)


def _contradicts(way: Way) -> bool:
    routers = [router for router, _ in way]
    return len(routers) != len(set(routers))
