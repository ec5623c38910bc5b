"""Where the boxes of a drawing go: layers from top to bottom, few crossings, straight wires.

Longest-path layers, crossings reduced by barycentres (Sugiyama, Tagawa, Toda 1981), and positions that pull every box
towards its neighbours as far as the order in its layer and the widths allow (isotonic regression).
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from itertools import pairwise
from types import MappingProxyType

SWEEPS = 12  # more did not lower the number of crossings on the shipped graphs
GAP = 28.0  # between boxes of a layer
BEND_WIDTH = 10.0  # room for a wire that passes a layer


@dataclass(frozen=True, slots=True)
class Placed:
    """Where things are: the layers from top to bottom, and the middle of each box.

    x       the middle of each box and bend, by id
    paths   for each edge the ids on its way: giver, bends, taker
    """

    layers: tuple[tuple[str, ...], ...]
    x: Mapping[str, float]
    paths: Mapping[tuple[str, str], tuple[str, ...]]


def place(
    widths: Mapping[str, float],
    edges: Sequence[tuple[str, str]],
    *,
    first: Collection[str] = (),
    last: Collection[str] = (),
    ends: Mapping[tuple[str, str], tuple[float, float]] = MappingProxyType({}),
) -> Placed:
    """Place boxes of given widths; edges are (giver, taker) and form no cycle.

    first, last  what has a layer of its own above, or below, all others
    ends         where an edge leaves and reaches its boxes, from their middles; the middles themselves when left out
    """
    unique = list(dict.fromkeys(edges))
    level = _levels([id for id in widths if id not in first and id not in last], _inside(unique, first, last))
    level = {id: layer + bool(first) for id, layer in level.items()} | dict.fromkeys(first, 0)
    level |= dict.fromkeys(last, 1 + max(level.values(), default=-1))
    paths = {edge: _path(edge, level) for edge in unique}
    width = dict(widths) | {bend: BEND_WIDTH for path in paths.values() for bend in path[1:-1]}
    layers = _initial_layers(widths, level, paths)
    pairs = [pair for path in paths.values() for pair in pairwise(path)]
    above, below = _neighbours(pairs)
    shifts = _shifts(paths, ends)
    layers = _order(layers, above, below, {pair: shift / max(width[pair[1]], 1.0) for pair, shift in shifts.items()})
    return Placed(tuple(map(tuple, layers)), _positions(layers, width, above, below, shifts), paths)


def _shifts(
    paths: Mapping[tuple[str, str], tuple[str, ...]], ends: Mapping[tuple[str, str], tuple[float, float]]
) -> dict[tuple[str, str], float]:
    """By (box or bend, its neighbour): where their edge meets the neighbour, from the middle of the neighbour."""
    found: dict[tuple[str, str], float] = {}
    for edge, (leaves, reaches) in ends.items():
        path = paths[edge]
        found[path[1], path[0]] = leaves
        found[path[-2], path[-1]] = reaches
    return found


def _inside(edges: Sequence[tuple[str, str]], first: Collection[str], last: Collection[str]) -> list[tuple[str, str]]:
    return [(giver, taker) for giver, taker in edges if giver not in first and taker not in last]


def _levels(ids: Sequence[str], edges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Number the layers by the longest path; what nothing feeds stands right above the first that takes it."""
    before: dict[str, list[str]] = {id: [] for id in ids}
    after: dict[str, list[str]] = {id: [] for id in ids}
    for giver, taker in edges:
        before[taker].append(giver)
        after[giver].append(taker)
    level: dict[str, int] = {}
    for id in TopologicalSorter(before).static_order():
        level[id] = 1 + max((level[giver] for giver in before[id]), default=-1)
    for id in ids:
        if not before[id] and after[id]:
            level[id] = min(level[taker] for taker in after[id]) - 1
    return level


def _path(edge: tuple[str, str], level: Mapping[str, int]) -> tuple[str, ...]:
    giver, taker = edge
    bends = (f"{giver}\0{taker}\0{layer}" for layer in range(level[giver] + 1, level[taker]))
    return (giver, *bends, taker)


def _initial_layers(
    widths: Mapping[str, float], level: Mapping[str, int], paths: Mapping[tuple[str, str], tuple[str, ...]]
) -> list[list[str]]:
    layers: list[list[str]] = [[] for _ in range(1 + max(level.values(), default=-1))]
    for id in widths:
        layers[level[id]].append(id)
    for (giver, _), path in paths.items():
        for step, bend in enumerate(path[1:-1], 1):
            layers[level[giver] + step].append(bend)
    return layers


def _neighbours(pairs: Sequence[tuple[str, str]]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    above: dict[str, list[str]] = defaultdict(list)
    below: dict[str, list[str]] = defaultdict(list)
    for upper, lower in pairs:
        above[lower].append(upper)
        below[upper].append(lower)
    return above, below


def _order(
    layers: list[list[str]], above: Mapping[str, list[str]], below: Mapping[str, list[str]], shifts: Mapping[tuple[str, str], float]
) -> list[list[str]]:
    """Sort each layer by the mean place of the neighbours, down and up by turns; keep the best order seen."""
    best, fewest = [list(layer) for layer in layers], _crossings(layers, below)
    for sweep in range(SWEEPS):
        if fewest == 0 and (sweep or not shifts):
            break
        is_down = sweep % 2 == 0
        rows = range(1, len(layers)) if is_down else range(len(layers) - 2, -1, -1)
        for row in rows:
            fixed = {id: index for index, id in enumerate(layers[row - 1 if is_down else row + 1])}
            layers[row] = _sorted_by_middle(layers[row], fixed, above if is_down else below, shifts)
        if (count := _crossings(layers, below)) < fewest or (shifts and count == fewest and not sweep):
            best, fewest = [list(layer) for layer in layers], count
    return best


def _sorted_by_middle(
    layer: Sequence[str], fixed: Mapping[str, int], neighbours: Mapping[str, list[str]], shifts: Mapping[tuple[str, str], float]
) -> list[str]:
    def middle(item: tuple[int, str]) -> tuple[float, int]:
        index, id = item
        places = [fixed[other] + shifts.get((id, other), 0.0) for other in neighbours.get(id, ())]
        return (sum(places) / len(places) if places else float(index)), index

    return [id for _, id in sorted(enumerate(layer), key=middle)]


def _crossings(layers: Sequence[Sequence[str]], below: Mapping[str, list[str]]) -> int:
    total = 0
    for upper, lower in pairwise(layers):
        index = {id: place for place, id in enumerate(lower)}
        seen: list[int] = []  # ends of the edges so far, sorted: an edge crosses those that end to its right
        for id in upper:
            ends = sorted(index[other] for other in below.get(id, ()))
            total += sum(len(seen) - bisect_right(seen, end) for end in ends)
            for end in ends:
                insort(seen, end)
    return total


def _positions(
    layers: Sequence[Sequence[str]],
    width: Mapping[str, float],
    above: Mapping[str, list[str]],
    below: Mapping[str, list[str]],
    shifts: Mapping[tuple[str, str], float],
) -> dict[str, float]:
    x: dict[str, float] = {}
    for layer in layers:
        x.update(_spread(layer, [0.0] * len(layer), width))
    for sweep in range(SWEEPS):
        is_down = sweep % 2 == 0
        for layer in layers if is_down else reversed(layers):
            wanted = [_wanted(id, x, above if is_down else below, below if is_down else above, shifts) for id in layer]
            x.update(_spread(layer, wanted, width))
    left = min((x[id] - width[id] / 2 for id in x), default=0.0)
    return {id: place - left for id, place in x.items()}


def _wanted(
    id: str,
    x: Mapping[str, float],
    first: Mapping[str, list[str]],
    second: Mapping[str, list[str]],
    shifts: Mapping[tuple[str, str], float],
) -> float:
    """The mean place of what it is joined to on one side; of the other where there is nothing."""
    others = first.get(id) or second.get(id) or [id]
    return sum(x[other] + shifts.get((id, other), 0.0) - shifts.get((other, id), 0.0) for other in others) / len(others)


def _spread(layer: Sequence[str], wanted: Sequence[float], width: Mapping[str, float]) -> dict[str, float]:
    """Put the boxes of a layer as near to the wanted places as their order and widths allow.

    With the least distances taken off, the places must not decrease: the nearest such sequence is found by pooling
    neighbours that are out of order to their mean. A bend weighs as much as a box, so that long wires stay straight.
    """
    offsets, offset = [], 0.0
    for index, id in enumerate(layer):
        if index:
            offset += (width[layer[index - 1]] + width[id]) / 2 + GAP
        offsets.append(offset)
    pools: list[tuple[float, int]] = []  # (mean, how many)
    for place, taken in zip(wanted, offsets, strict=True):
        mean, count = place - taken, 1
        while pools and pools[-1][0] > mean:
            other, many = pools.pop()
            mean, count = (mean * count + other * many) / (count + many), count + many
        pools.append((mean, count))
    means = [mean for mean, count in pools for _ in range(count)]
    return {id: mean + taken for id, mean, taken in zip(layer, means, offsets, strict=True)}
