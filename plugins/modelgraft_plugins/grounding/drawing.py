"""The work of grounding/draw, on PIL."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw, ImageFont

from modelgraft.plugin import InputError, LoadContext, eight_bits, on_white
from modelgraft_plugins.grounding.boxes import CORNERS
from modelgraft_plugins.lettering import cut

if TYPE_CHECKING:
    from modelgraft_plugins.grounding import Draw

# colours that can be told apart by most eyes, on dark and on bright pictures; white letters can be read on each (Okabe and Ito, darkened)
COLOURS = ("#b3402a", "#0b6fa4", "#1d7d53", "#8a4f9e", "#a3660b", "#5a5f66", "#a8326e", "#2f5bb7", "#567a12", "#7a4b2a")
LINE_SHARE, LETTER_SHARE = 300, 32  # of the mean side of a picture: a line of 600 pixels is 2 wide, a name 18 high
LEAST_LINE, LEAST_LETTERS = 2, 11
PAD = 0.25  # around a name, of its height
Place = tuple[float, float, float, float]  # left top right bottom in pixels


def load(config: Draw, context: LoadContext) -> Callable[[list[Image.Image], list[Any]], list[Image.Image]]:
    """Make the function from pictures and their boxes to pictures. Raises InputError for a box that is no rectangle."""
    name = context.node.name

    def run(image: list[Image.Image], boxes: list[Sequence[Mapping[str, Any]]]) -> list[Image.Image]:
        records = zip(image, boxes, strict=True)
        return [_drawn(config, picture, given, f"{name}: record {row + 1} of {len(image)}") for row, (picture, given) in enumerate(records)]

    return run


@dataclass(slots=True)
class Names:
    """The names that stand on a picture, and what they are written with. font: one of two classes of PIL."""

    pen: ImageDraw.ImageDraw
    font: Any
    line: int
    taken: list[Place] = field(default_factory=list)

    def write(self, text: str, box: Mapping[str, Any], colour: str) -> None:
        """A name on its colour, where no other name stands."""
        width, height = self.pen.im.size
        pad = round(self.font.size * PAD)
        text = cut(text, width - 2 * pad, self.font)
        size = (self.font.getlength(text) + 2 * pad, sum(self.font.getmetrics()) + pad)
        spots = [_within(spot, size, width, height) for spot in self._spots(box, size)]
        place = next((spot for spot in spots if not any(_touch(spot, other) for other in self.taken)), spots[0])
        self.pen.rectangle(place, fill=colour)
        self.pen.text((place[0] + pad, place[1] + pad / 2), text, font=self.font, fill="white")
        self.taken.append(place)

    def _spots(self, box: Mapping[str, Any], size: tuple[float, float]) -> Iterator[tuple[float, float]]:
        """Left and top of a name, the best first: above its box, within it at its top, below it, then further down within it."""
        x0, y0, x1, y1 = (box[corner] for corner in CORNERS)
        yield x0, y0 - size[1]
        yield x0, y0
        yield x0, y1
        yield x1 - size[0], y0 - size[1]
        down = y0
        while (down := down + size[1] + self.line) < y1:
            yield x0, down


def _drawn(config: Draw, picture: Image.Image, boxes: Sequence[Mapping[str, Any]], label: str) -> Image.Image:
    """The picture with all boxes, then all names, so that no line crosses a name."""
    canvas = on_white(eight_bits(picture, label)).copy()
    pen, mean = ImageDraw.Draw(canvas), sum(canvas.size) / 2
    line = config.line or max(LEAST_LINE, round(mean / LINE_SHARE))
    colours = _colours(boxes)
    for number, box in enumerate(boxes):
        x0, y0, x1, y1 = (box[corner] for corner in CORNERS)
        if not (x1 > x0 and y1 > y0):
            found = f"{label}, box {number}: ({x0:g}, {y0:g}) to ({x1:g}, {y1:g}) has no area"
            raise InputError(f"{found}: x1 must be above x0, and y1 above y0")
        pen.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=colours[_said(box)], width=line)
    names = Names(pen, ImageFont.load_default(config.letters or max(LEAST_LETTERS, round(mean / LETTER_SHARE))), line)
    for box in boxes:
        if text := _name(box, scores=config.scores):
            names.write(text, box, colours[_said(box)])
    return canvas


def _within(spot: tuple[float, float], size: tuple[float, float], width: int, height: int) -> Place:
    """A place of this size, moved into the picture."""
    left, top = (max(0.0, min(at, most - side - 1)) for at, side, most in zip(spot, size, (width, height), strict=True))
    return left, top, left + size[0], top + size[1]


def _touch(one: Place, other: Place) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _said(box: Mapping[str, Any]) -> str:
    return str(box.get("text") or "")


def _name(box: Mapping[str, Any], *, scores: bool) -> str:
    score = box.get("score")
    return f"{_said(box)} {score:.2f}".strip() if scores and score is not None else _said(box)


def _colours(boxes: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Name -> its colour, in the order in which they come."""
    return {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(dict.fromkeys(map(_said, boxes)))}
