"""Graphs that stand as nodes: which boxes lie in which, and the same picture with some of them folded into one box."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from modelgraft.records.amounts import in_seconds, short_count
from modelgraft.tools.draw.picture import FROZEN, TRAINED, Arrow, Box, Picture
from modelgraft.tools.draw.spent import CACHED, in_percent

MOST_STATES = 16  # drawings that a page carries, each with other graphs folded
MOST_BOXES = 3_000  # in all of them: a page of more is slow to open


def clusters(drawn: Picture) -> tuple[str, ...]:
    """The graphs that stand as nodes, outer before inner: `eye`, `eye/pre`."""
    found = {id for box in drawn.boxes for id in ancestors(box)}
    return tuple(sorted(found, key=lambda id: (id.count("/"), id)))


def ancestors(box: Box) -> tuple[str, ...]:
    """The graphs that a box lies in, outer before inner."""
    if box.role not in ("node", "graph"):
        return ()
    steps = box.id.split("/")[:-1]
    return tuple("/".join(steps[: depth + 1]) for depth in range(len(steps)))


def home_of(box: Box) -> str:
    """The graph that a box lies in; "" for the whole."""
    inside = ancestors(box)
    return inside[-1] if inside else ""


def fold(drawn: Picture, names: Collection[str]) -> Picture:
    """The picture with these inner graphs as one box each; those inside them are gone with the rest."""
    place = {box.id: next((id for id in ancestors(box) if id in names), box.id) for box in drawn.boxes}
    inside: dict[str, list[Box]] = {}
    for box in drawn.boxes:
        if place[box.id] != box.id:
            inside.setdefault(place[box.id], []).append(box)
    boxes: list[Box] = []
    for box in drawn.boxes:
        at = place[box.id]
        if at == box.id:
            boxes.append(box)
        elif inside[at][0] is box:
            boxes.append(_folded(at, inside[at]))
    return replace(drawn, boxes=tuple(boxes), arrows=tuple(dict.fromkeys(_led(drawn, place))))


def _led(drawn: Picture, place: dict[str, str]) -> Iterable[Arrow]:
    """The arrows between what is left; one that comes out of a folded graph names the output of that graph."""
    for arrow in drawn.arrows:
        giver, taker = place[arrow.giver], place[arrow.taker]
        if giver == taker:
            continue
        into = arrow.into if taker == arrow.taker else ""
        inside = f"{arrow.giver.removeprefix(f'{giver}/')}{f'.{arrow.out}' * bool(arrow.out)}"
        out = arrow.out if giver == arrow.giver else drawn.gates.get((giver, arrow.giver, arrow.out), inside)
        yield replace(arrow, giver=giver, taker=taker, out=out, into=into)


def _folded(id: str, boxes: list[Box]) -> Box:
    """One box for all that lies in a graph."""
    nodes, parameters = len(boxes), sum(box.parameters or 0 for box in boxes)
    unknown = any(box.parameters is None for box in boxes)
    lines = [f"graph of {nodes} node{'s' * (nodes != 1)}"]
    if parameters:
        lines.append(f"{'more than ' * unknown}{short_count(parameters)} parameters")
    marks = {box.mark for box in boxes} - {""}
    mark = TRAINED if TRAINED in marks else FROZEN if marks else ""
    share = sum(box.share for box in boxes)
    seconds = sum(box.seconds for box in boxes)
    times = [box.time for box in boxes if box.time]
    time = CACHED if times and all(one == CACHED for one in times) else f"{in_seconds(seconds)} · {in_percent(share)}" if times else ""
    facts = [("holds", box.id.removeprefix(f"{id}/"), " · ".join(box.lines)) for box in boxes]
    return Box(
        id, "graph", id.rpartition("/")[2], tuple(lines), mark, facts=tuple(facts), idle=all(box.idle for box in boxes),
        parameters=parameters, time=time, seconds=seconds, share=share,
    )  # fmt: skip


def states(drawn: Picture) -> dict[tuple[str, ...], Picture]:
    """The drawings that a page needs, by the graphs that are folded in each.

    With few inner graphs every choice is there; with more, all folded or one of them open together with those around it; of a
    very large graph only all folded and all open.
    """
    every = clusters(drawn)
    most = max(2, min(MOST_STATES, MOST_BOXES // max(1, len(drawn.boxes))))
    folded = frozenset(every)
    choices = [frozenset[str]()]
    for id in every if 2 ** len(every) <= most else ():
        choices += [taken | {id} for taken in choices]
    if len(every) + 2 <= 4 * most and len(choices) == 1:
        choices += [folded, *(folded - {id, *_around(id)} for id in every)]
    return {tuple(sorted(taken)): fold(drawn, taken) for taken in (*choices, folded)}


def _around(id: str) -> set[str]:
    steps = id.split("/")
    return {"/".join(steps[:depth]) for depth in range(1, len(steps))}
