"""Boxes as fractions of a picture, and as pixels of it. Light: no picture library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Box = tuple[float, float, float, float]  # x0 y0 x1 y1, from 0 to 1, of what a model saw
Frame = Literal["whole", "padded"]
FRAMES: tuple[Frame, ...] = ("whole", "padded")
CORNERS = ("x0", "y0", "x1", "y1")
STRAY_PX = 1.0  # a box may stand out of its picture by so much: detectors round outwards, and half a pixel is no mistake


def pixels_of(box: Box, *, width: int, height: int, frame: Frame) -> dict[str, float]:
    """A box in pixels of a picture, cut at its edges: those of a padded square may lie beside it."""
    left, top, across, down = _seen(width, height, frame)
    given = (left + box[0] * across, top + box[1] * down, left + box[2] * across, top + box[3] * down)
    return {name: min(max(place, 0.0), float(most)) for name, place, most in zip(CORNERS, given, (width, height) * 2, strict=True)}


def fractions_of(box: Mapping[str, Any], *, width: int, height: int, frame: Frame) -> Box:
    """A box in pixels as fractions of what a model sees.

    Raises ValueError, which says what is wrong, for one that is no rectangle, or lies outside of its picture.
    """
    x0, y0, x1, y1 = (float(box[corner]) for corner in CORNERS)
    shown = f"({x0:g}, {y0:g}) to ({x1:g}, {y1:g})"
    if not (x1 > x0 and y1 > y0):  # also where one is no number
        raise ValueError(f"the box {shown} has no area: x1 must be above x0, and y1 above y0")
    if min(x0, y0) < -STRAY_PX or x1 > width + STRAY_PX or y1 > height + STRAY_PX:
        raise ValueError(f"the box {shown} lies outside of the picture, which is {width} x {height} pixels: cut it at the edges")
    x0, x1, y0, y1 = max(x0, 0.0), min(x1, float(width)), max(y0, 0.0), min(y1, float(height))
    left, top, across, down = _seen(width, height, frame)
    return (x0 - left) / across, (y0 - top) / down, (x1 - left) / across, (y1 - top) / down


def fault_of(box: Box) -> str | None:
    """What is wrong with a box that a model wrote: None, or a few words."""
    if min(box) < 0 or max(box) > 1:
        return "a corner lies outside of the picture"
    if box[2] <= box[0] or box[3] <= box[1]:
        return "its corners are the wrong way round"
    return None


def _seen(width: int, height: int, frame: Frame) -> tuple[float, float, float, float]:
    """Left, top, width and height, in pixels of the picture, of what a model sees of it."""
    if frame == "whole":
        return 0.0, 0.0, float(width), float(height)
    side = max(width, height)
    return (width - side) / 2, (height - side) / 2, float(side), float(side)
