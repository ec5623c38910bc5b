"""Orders of nodes: what runs after what, what can be reached, and the cycles that leave no order."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from heapq import heappop, heappush
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import networkx

N = TypeVar("N", bound=Hashable)


def topological(feeders: Mapping[str, Collection[str]]) -> list[str]:
    """Every node after those that feed it; of the nodes that could be next, the first by name. What lies on or behind a cycle is left out.

    feeders  for each node the nodes that it waits for, all of them keys as well
    """
    waiting = {name: len(others) for name, others in feeders.items()}
    followers: dict[str, list[str]] = {}
    for name, others in feeders.items():
        for other in others:
            followers.setdefault(other, []).append(name)
    ready = sorted(name for name, count in waiting.items() if not count)  # which is a heap
    order = []
    while ready:
        order.append(heappop(ready))
        for follower in followers.get(order[-1], ()):
            waiting[follower] -= 1
            if not waiting[follower]:
                heappush(ready, follower)
    return order


def reach(start: Iterable[N], step: Callable[[N], Iterable[N]]) -> set[N]:
    """What can be reached from some nodes, they themselves included; each is asked once where it leads."""
    reached: set[N] = set()
    waiting = list(start)
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting.extend(step(name))
    return reached


def find_cycles(feeders: Mapping[str, Collection[str]]) -> list[tuple[str, ...]]:
    """One shortest cycle of each knot of nodes, from its first node by name, in the direction of the data."""
    if len(topological(feeders)) == len(feeders):
        return []
    import networkx  # takes as long to import as a graph takes to check: only for graphs that have a cycle

    graph = networkx.DiGraph([(feeder, name) for name in sorted(feeders) for feeder in sorted(feeders[name])])
    knots = [knot for knot in networkx.strongly_connected_components(graph) if len(knot) > 1 or graph.has_edge(*knot, *knot)]
    return sorted(_shortest(graph.subgraph(knot), min(knot)) for knot in knots)


def _shortest(knot: networkx.DiGraph, start: str) -> tuple[str, ...]:
    from networkx import single_source_shortest_path

    paths = single_source_shortest_path(knot, start)
    return min((tuple(paths[feeder]) for feeder in knot.predecessors(start)), key=lambda path: (len(path), path))
