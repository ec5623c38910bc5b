"""How much of a bench a page holds: everything, or less of what takes most room, until it is small enough."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What a page has room for.

    is_full  whether tooltips are written out, and commands whole; without, the script puts the tooltips together from the table, and
             what all commands have in common is told once
    strips   rows of bars, and of ratios;  rows  of the table, and points of a chart;  groups  of reasons, failures, warnings
    letters  of a text
    """

    is_full: bool = True
    strips: int = 200
    rows: int = 250  # more never fit
    groups: int = 60
    letters: int = 600


LEAST = Room(is_full=False, strips=1, rows=1, groups=1, letters=20)


def rooms() -> Iterator[Room]:
    """Ever less room: first what is said twice goes, then rows of bars, then cells, and texts last of all."""
    room = Room()
    yield room
    for strips in (100, 60, 40, 24):
        room = replace(room, is_full=False, strips=strips, groups=30, letters=300)
        yield room
    while room.rows > 20:
        room = replace(room, strips=max(room.strips * 2 // 3, 8), rows=room.rows * 2 // 3)
        yield room
    for groups, letters in ((10, 200), (6, 100), (3, 60)):
        room = replace(room, groups=groups, letters=letters)
        yield room
    yield LEAST


def cut(text: str, letters: int) -> str:
    """A text that fits, or its beginning and how long it is."""
    return text if len(text) <= letters else f"{text[:letters]}… ({len(text):,} letters)"
