"""Where names of points are written, so that none lies over a point or over another name, at whatever width the page has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from modelgraft.commands import text_width

PX = 11.0  # of the letters
LINE = 13.0  # their height with some air
REACH = 7.0  # from a point to its name, and the half of a mark with some air

Frame = tuple[float, float, float, float]  # left, top, right, bottom, in pixels


@dataclass(frozen=True, slots=True)
class Spot:
    """A point: across the chart from 0 to 1, down it in pixels, and its name ("" for none)."""

    x: float
    y: float
    name: str = ""


@dataclass(frozen=True, slots=True)
class Label:
    """A name in its place: pixels from its point, and which end of it lies there."""

    spot: Spot
    dx: float
    dy: float
    anchor: str


def place(spots: Sequence[Spot], *, widths: Sequence[float], height: float) -> list[Label]:
    """Place the names that have room, the first spots first; the others are left out.

    widths  in pixels: those at which it must come out well
    """
    marks = [[_around(spot, width) for spot in spots] for width in widths]
    taken: list[list[Frame]] = [[] for _ in widths]
    placed = []
    for spot in spots:
        size = text_width(spot.name, PX)
        for label in _places(spot) if spot.name else ():
            frames = [_frame(label, size, width) for width in widths]
            if all(
                _is_free(frame, width, height, [*near, *names])
                for frame, width, near, names in zip(frames, widths, marks, taken, strict=True)
            ):
                for names, frame in zip(taken, frames, strict=True):
                    names.append(frame)
                placed.append(label)
                break
    return placed


def _places(spot: Spot) -> Iterator[Label]:
    yield Label(spot, REACH + 2, 4, "start")
    yield Label(spot, -REACH - 2, 4, "end")
    yield Label(spot, 0, -REACH - 3, "middle")
    yield Label(spot, 0, REACH + 11, "middle")
    for dy in (-REACH, REACH + 8):
        yield Label(spot, REACH, dy, "start")
        yield Label(spot, -REACH, dy, "end")


def _around(spot: Spot, width: float) -> Frame:
    x = spot.x * width
    return x - REACH, spot.y - REACH, x + REACH, spot.y + REACH


def _frame(label: Label, size: float, width: float) -> Frame:
    x = label.spot.x * width + label.dx - {"start": 0.0, "middle": size / 2, "end": size}[label.anchor]
    bottom = label.spot.y + label.dy + 3
    return x, bottom - LINE, x + size, bottom


def _is_free(frame: Frame, width: float, height: float, others: Sequence[Frame]) -> bool:
    left, top, right, bottom = frame
    if left < 0 or top < 0 or right > width or bottom > height:
        return False
    return not any(left < other[2] and other[0] < right and top < other[3] and other[1] < bottom for other in others)
