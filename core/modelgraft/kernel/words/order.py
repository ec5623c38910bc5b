"""Orders of nodes: what runs after what, and the cycles that leave no order."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from heapq import heapify, heappop, heappush


def topological(feeders: Mapping[str, Collection[str]]) -> list[str]:
    """Every node after those that feed it; of the nodes that could be next, the first by name. There must be no cycle.

    feeders  for each node the nodes that it waits for, all of them keys as well
    """
    followers, waiting = _turned(feeders)
    ready = [name for name, count in waiting.items() if count == 0]
    heapify(ready)
    order = []
    while ready:
        name = heappop(ready)
        order.append(name)
        for follower in followers[name]:
            waiting[follower] -= 1
            if waiting[follower] == 0:
                heappush(ready, follower)
    return order


def find_cycles(feeders: Mapping[str, Collection[str]]) -> list[tuple[str, ...]]:
    """One shortest cycle of each knot of nodes, from its first node by name, in the direction of the data."""
    knots = _knots(feeders)
    return sorted(_shortest(min(knot), knot, feeders) for knot in knots)


def _turned(feeders: Mapping[str, Collection[str]]) -> tuple[dict[str, list[str]], dict[str, int]]:
    followers: dict[str, list[str]] = {name: [] for name in feeders}
    for name in feeders:
        for feeder in set(feeders[name]):
            followers[feeder].append(name)
    return followers, {name: len(set(names)) for name, names in feeders.items()}


def _knots(feeders: Mapping[str, Collection[str]]) -> list[set[str]]:
    """The sets of nodes that wait for each other (Tarjan's strongly connected components, without recursion)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    on_stack: set[str] = set()
    knots: list[set[str]] = []
    for start in feeders:
        if start in index:
            continue
        index[start] = low[start] = len(index)
        stack.append(start)
        on_stack.add(start)
        path = [(start, iter(sorted(feeders[start])))]
        while path:
            name, rest = path[-1]
            following = next(rest, None)
            if following is None:
                path.pop()
                if path:
                    low[path[-1][0]] = min(low[path[-1][0]], low[name])
                if low[name] == index[name]:
                    knot = _cut(stack, on_stack, name)
                    if len(knot) > 1 or name in feeders[name]:
                        knots.append(knot)
            elif following not in index:
                index[following] = low[following] = len(index)
                stack.append(following)
                on_stack.add(following)
                path.append((following, iter(sorted(feeders[following]))))
            elif following in on_stack:
                low[name] = min(low[name], index[following])
    return knots


def _cut(stack: list[str], on_stack: set[str], name: str) -> set[str]:
    knot: set[str] = set()
    while name not in knot:
        knot.add(stack.pop())
    on_stack -= knot
    return knot


def _shortest(start: str, knot: set[str], feeders: Mapping[str, Collection[str]]) -> tuple[str, ...]:
    """Walk backwards from the start, level by level, until it is met again."""
    before = {start: ""}
    level = [start]
    while level:
        following: list[str] = []
        for name in level:
            for feeder in sorted(knot & set(feeders[name])):
                if feeder == start:
                    return _trail(start, name, before)
                if feeder not in before:
                    before[feeder] = name
                    following.append(feeder)
        level = following
    raise AssertionError("a knot holds a cycle through each of its nodes")


def _trail(start: str, last: str, before: Mapping[str, str]) -> tuple[str, ...]:
    """From the start along the data: `last` takes from the start; follow who takes from whom."""
    trail, name = [start], last
    while name != start:
        trail.append(name)
        name = before[name]
    return tuple(trail)
