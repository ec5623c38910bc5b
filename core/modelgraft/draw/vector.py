"""A drawing as SVG, laid out here: no other program is needed to see it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from modelgraft.draw.layout import Placed, place
from modelgraft.draw.picture import FROZEN, TRAINED, Arrow, Box, Picture, picture
from modelgraft.graph import SolvedGraph
from modelgraft.plans import Plan

MARGIN, PAD = 24.0, 14.0
NAME_PX, LINE_PX, PORT_PX = 13.0, 11.0, 10.0
LINE_HEIGHT, STRIP_HEIGHT = 15.0, 13.0  # a line of text in a box; the strip with the names of ports
LAYER_GAP = 66.0  # room for the types on the wires between two layers
PLATE_HEIGHT = 24.0  # from the box to the lower edge of the plate with the type

# One colour per family of values: media in strong colours, numbers in greys.
COLOURS: Mapping[str, str] = {
    "image": "#2563eb",
    "video": "#7c3aed",
    "depth": "#0e7490",
    "thermal": "#be123c",
    "imu": "#65a30d",
    "audio": "#d97706",
    "text": "#15803d",
    "conversation": "#0f766e",
    "label": "#a21caf",
    "boxes": "#b45309",
    "tokens": "#8a6d3b",
    "tensor": "#5b6470",
    "mask": "#9f5f4b",
    "object": "#44403c",
}
_MARKS = {FROZEN: "frozen weights", TRAINED: "trained weights", "": "no weights"}

_STYLE = """
text { font-family: Inter, 'Segoe UI', Helvetica, Arial, 'DejaVu Sans', sans-serif; fill: #22272e; }
.name { font-size: 13px; font-weight: 600; } .line { font-size: 11px; fill: #4b5563; }
.port { font-size: 10px; fill: #6b7280; } .type { font-size: 10px; }
.box rect { fill: #ffffff; stroke: #9aa3ad; stroke-width: 1.2; }
.frozen rect { fill: #e8f2fb; stroke: #4a86b8; } .trained rect { fill: #fdf0e1; stroke: #d08a3e; }
.idle { opacity: 0.45; } .idle rect { stroke-dasharray: 5 4; }
.wire { fill: none; stroke-width: 1.6; } .route { stroke-dasharray: 6 4; }
""".strip()


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of a box, and the names of its ports from left to right with the place of each, relative to its middle."""

    width: float
    height: float
    ins: Mapping[str, float]
    outs: Mapping[str, float]


def svg(subject: SolvedGraph | Plan) -> str:
    """Draw as an SVG document without references to anything outside."""
    return draw_svg(picture(subject))


def draw_svg(drawn: Picture) -> str:
    """Draw what was laid down in a Picture."""
    edges = [(arrow.giver, arrow.taker) for arrow in drawn.arrows]
    ends = _Ends(drawn.arrows)
    widths = {box.id: _width(box, ends) for box in drawn.boxes}
    canvas = _Canvas(drawn, place(widths, edges), widths, ends)
    body = [*canvas.wires(), *canvas.boxes(), *canvas.types(), *canvas.legend()]
    width, height = canvas.size()
    title, size = escape(drawn.name or "graph"), f'width="{width:.0f}" height="{height:.0f}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" {size} role="img">',
            f"<title>{title}</title><desc>{escape(drawn.doc)}</desc>",
            f"<style>{_STYLE}</style>",
            "<defs>",
            *(_arrow_head(family, colour) for family, colour in COLOURS.items()),
            "</defs>",
            f'<rect {size} fill="#ffffff" class="paper"/>',
            *body,
            "</svg>\n",
        ]
    )


def _arrow_head(family: str, colour: str) -> str:
    return (
        f'<marker id="head-{family}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0.5 L8 4 L0 7.5 z" fill="{colour}"/></marker>'
    )


# -- sizes ----------------------------------------------------------------------------------------------------------------


def text_width(text: str, px: float) -> float:
    """Estimate how wide a text is in a common sans-serif face: exact metrics would need the font."""
    narrow, wide = "iIjl.,:;|![]()'ft ", "mwMW@%"
    ems = sum(0.33 if letter in narrow else 0.88 if letter in wide else 0.58 for letter in text)
    return ems * px


class _Ends:
    """The arrows by the box that they leave, and by the box that they reach."""

    def __init__(self, arrows: Iterable[Arrow]) -> None:
        self.going: dict[str, list[Arrow]] = defaultdict(list)
        self.coming: dict[str, list[Arrow]] = defaultdict(list)
        for arrow in arrows:
            self.going[arrow.giver].append(arrow)
            self.coming[arrow.taker].append(arrow)


def _width(box: Box, ends: _Ends) -> float:
    """Wide enough for the words, the names of the ports and the types on the wires below."""
    mark = 20.0 if box.mark else 0.0
    words = [text_width(box.name, NAME_PX) * 1.08 + mark, *(text_width(line, LINE_PX) for line in box.lines)]
    takes = dict.fromkeys(arrow.into for arrow in ends.coming[box.id])
    gives = {arrow.out: arrow.label for arrow in ends.going[box.id]}
    ins = sum(text_width(name, PORT_PX) + 12 for name in takes)
    outs = sum(max(text_width(name, PORT_PX), text_width(label, PORT_PX) + 10) + 10 for name, label in gives.items())
    return max(84.0, max(words) + 2 * PAD, ins + PAD, outs)


# -- the canvas -----------------------------------------------------------------------------------------------------------


class _Canvas:
    """Everything that is drawn, once the places are known."""

    def __init__(self, drawn: Picture, placed: Placed, widths: Mapping[str, float], ends: _Ends) -> None:
        self.drawn, self.placed, self.widths, self.ends = drawn, placed, widths, ends
        self.shapes = {box.id: self._shape(box) for box in drawn.boxes}
        self.top, self.bottom = self._rows()

    def _shape(self, box: Box) -> Shape:
        ins = self._in_order(self.ends.coming[box.id], side=-2)
        outs = self._in_order(self.ends.going[box.id], side=1)
        strips = STRIP_HEIGHT * (any(ins) + any(outs))
        width = self.widths[box.id]
        height = PAD + NAME_PX + LINE_HEIGHT * len(box.lines) + 8 + strips
        return Shape(width, height, _spaced(ins, width), _spaced(outs, width))

    def _in_order(self, arrows: list[Arrow], *, side: int) -> list[str]:
        """The names of the ports, sorted by where their wires lead, so that wires of one box do not cross."""
        ends: dict[str, list[float]] = defaultdict(list)
        for arrow in arrows:
            path = self.placed.paths[arrow.giver, arrow.taker]
            ends[arrow.out if side == 1 else arrow.into].append(self.placed.x[path[side]])
        return sorted(ends, key=lambda name: sum(ends[name]) / len(ends[name]))

    def _rows(self) -> tuple[dict[str, float], dict[str, float]]:
        top, bottom, y, runs = dict[str, float](), dict[str, float](), MARGIN, self._runs()
        for layer in self.placed.layers:
            height = max((self.shapes[id].height for id in layer if id in self.shapes), default=20.0)
            for id in layer:
                own = self.shapes[id].height if id in self.shapes else height
                top[id], bottom[id] = y + (height - own) / 2, y + (height + own) / 2
            run = max((runs[id] for id in layer), default=0.0)
            y += height + LAYER_GAP + min(90.0, run * 0.08)  # wires that run far to the side need more room
        return top, bottom

    def _runs(self) -> dict[str, float]:
        """How far to the side the wires run that start at each box or bend."""
        runs: dict[str, float] = defaultdict(float)
        for path in self.placed.paths.values():
            for upper, lower in pairwise(path):
                runs[upper] = max(runs[upper], abs(self.placed.x[upper] - self.placed.x[lower]))
        return runs

    def size(self) -> tuple[float, float]:
        """Width and height of the whole."""
        right = max((self.placed.x[id] + shape.width / 2 for id, shape in self.shapes.items()), default=0.0)
        legend = sum(width for _, width in self._legend_entries())
        return max(right, legend) + 2 * MARGIN, self._legend_y() + MARGIN

    def _legend_y(self) -> float:
        return max(self.bottom.values(), default=0.0) + 34

    def _x(self, id: str) -> float:
        return MARGIN + self.placed.x[id]

    # -- boxes

    def boxes(self) -> Iterator[str]:
        for box in self.drawn.boxes:
            yield from self._box(box)

    def _box(self, box: Box) -> Iterator[str]:
        shape, x, y = self.shapes[box.id], self._x(box.id), self.top[box.id]
        left, radius = x - shape.width / 2, 7 if box.role == "node" else min(shape.height / 2, 18)
        classes = " ".join(["box", box.role, *([box.mark] if box.mark else []), *(["idle"] if box.idle else [])])
        tint = f' style="stroke:{_colour(box.family)};fill:{_colour(box.family)}12"' if box.role != "node" else ""
        yield f'<g class="{classes}" data-id="{escape(box.id)}"><title>{escape(_tooltip(box))}</title>'
        yield f'<rect x="{left:.1f}" y="{y:.1f}" width="{shape.width:.1f}" height="{shape.height:.1f}" rx="{radius:.0f}"{tint}/>'
        line_y = y + PAD + 8
        if any(shape.ins):
            yield from self._port_names(shape.ins, x, y + 12)
            line_y += STRIP_HEIGHT
        shift = 9 if box.mark else 0
        yield _text("name", x - shift, line_y, box.name)
        if box.mark:
            yield _mark(box.mark, x - shift + text_width(box.name, NAME_PX) * 1.04 / 2 + 13, line_y - 4.5)
        for index, line in enumerate(box.lines, 1):
            yield _text("line", x, line_y + LINE_HEIGHT * index, line)
        if any(shape.outs):
            yield from self._port_names(shape.outs, x, y + shape.height - 5)
        yield "</g>"

    def _port_names(self, ports: Mapping[str, float], x: float, y: float) -> Iterator[str]:
        for name, offset in ports.items():
            yield _text("port", x + offset, y, name)

    # -- wires

    def wires(self) -> Iterator[str]:
        for arrow in self.drawn.arrows:
            yield self._wire(arrow)

    def _wire(self, arrow: Arrow) -> str:
        path = self.placed.paths[arrow.giver, arrow.taker]
        x, y = self._x(path[0]) + self.shapes[path[0]].outs[arrow.out], self.bottom[path[0]]
        aside = self._aside(arrow)
        parts = [f"M{x:.1f} {y:.1f}"]
        if arrow.label:  # straight down behind the plate with the type
            y += PLATE_HEIGHT
            parts.append(f"L{x:.1f} {y:.1f}")
        for id in path[1:]:
            is_end = id in self.shapes
            next_x = self._x(id) + (self.shapes[id].ins[arrow.into] if is_end else aside)
            next_y = self.top[id] - (1 if is_end else 0)
            middle = (y + next_y) / 2
            parts.append(f"C{x:.1f} {middle:.1f} {next_x:.1f} {middle:.1f} {next_x:.1f} {next_y:.1f}")
            x, y = next_x, next_y
            if not is_end:
                y = self.bottom[id]
                parts.append(f"L{x:.1f} {y:.1f}")
        kind = "wire route" if arrow.is_route else "wire"
        family = arrow.family if arrow.family in COLOURS else "object"
        ends = f'data-giver="{escape(arrow.giver)}" data-taker="{escape(arrow.taker)}"'
        return f'<path class="{kind}" {ends} d="{" ".join(parts)}" stroke="{COLOURS[family]}" marker-end="url(#head-{family})"/>'

    def _aside(self, arrow: Arrow) -> float:
        """How far from the middle of a bend a wire passes: wires between the same two boxes run side by side."""
        outs, ins = self.shapes[arrow.giver].outs, self.shapes[arrow.taker].ins
        beside = sorted((ins[one.into], outs[one.out]) for one in self.ends.going[arrow.giver] if one.taker == arrow.taker)
        return 5.0 * (beside.index((ins[arrow.into], outs[arrow.out])) - (len(beside) - 1) / 2)

    def types(self) -> Iterator[str]:
        """The type of each output, once, on a plate at the start of its wires."""
        told = set[tuple[str, str]]()
        for arrow in self.drawn.arrows:
            if arrow.label and (arrow.giver, arrow.out) not in told:
                told.add((arrow.giver, arrow.out))
                x = self._x(arrow.giver) + self.shapes[arrow.giver].outs[arrow.out]
                yield from _plate(arrow, x, self.bottom[arrow.giver] + 15)

    # -- legend

    def _legend_entries(self) -> list[tuple[str, float]]:
        marks = [mark for mark in _MARKS if any(box.mark == mark and box.role == "node" for box in self.drawn.boxes)]
        families = [family for family in COLOURS if any(arrow.family == family for arrow in self.drawn.arrows)]
        words = [f"mark:{mark}" for mark in marks] + families
        return [(word, text_width(_MARKS.get(word.removeprefix("mark:"), word) if ":" in word else word, PORT_PX) + 40) for word in words]

    def legend(self) -> Iterator[str]:
        x, y = MARGIN, self._legend_y()
        for word, width in self._legend_entries():
            if word.startswith("mark:"):
                mark = word.removeprefix("mark:")
                yield f'<g class="box {mark}"><rect x="{x:.1f}" y="{y - 9:.1f}" width="18" height="12" rx="3"/></g>'
                yield _text("port", x + 24, y + 1, _MARKS[mark], anchor="start")
            else:
                yield f'<path class="wire" d="M{x:.1f} {y - 3:.1f} h18" stroke="{COLOURS[word]}"/>'
                yield _text("port", x + 24, y + 1, word, anchor="start")
            x += width


def _spaced(names: list[str], width: float) -> dict[str, float]:
    return {name: width * ((index + 0.5) / len(names) - 0.5) for index, name in enumerate(names)}


def _colour(family: str) -> str:
    return COLOURS.get(family, COLOURS["object"])


def _text(kind: str, x: float, y: float, words: str, *, anchor: str = "middle") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _plate(arrow: Arrow, x: float, y: float) -> Iterator[str]:
    width, colour = text_width(arrow.label, PORT_PX) + 10, _colour(arrow.family)
    frame = f'x="{x - width / 2:.1f}" y="{y - 7:.1f}" width="{width:.1f}" height="14" rx="7"'
    yield f'<rect {frame} fill="#ffffff" stroke="{colour}" stroke-width="0.7"/>'
    yield f'<text class="type" x="{x:.1f}" y="{y + 3.5:.1f}" text-anchor="middle" style="fill:{colour}">{escape(arrow.label)}</text>'


def _mark(mark: str, x: float, y: float) -> str:
    """A snowflake or a flame, drawn: not every font has them."""
    if mark == FROZEN:
        arms = "".join(
            f'<path transform="rotate({angle})" d="M0 -6 V6 M-2 -4.6 L0 -3 L2 -4.6 M-2 4.6 L0 3 L2 4.6"/>' for angle in (0, 60, 120)
        )
        return f'<g transform="translate({x:.1f} {y:.1f})" fill="none" stroke="#3577ab" stroke-width="1.1">{arms}</g>'
    outer = "M0 -6.5 C1 -3.5 4.5 -2 4.5 1.8 A4.5 4.5 0 0 1 -4.5 1.8"
    flame = f"{outer} C-4.5 -0.4 -3 -1.4 -2.4 -3.2 C-1.6 -2.4 -1.2 -1.6 -1 -0.8 C0.2 -2.4 0.4 -4.6 0 -6.5 z"
    return f'<path transform="translate({x:.1f} {y:.1f})" d="{flame}" fill="#e07b1f"/>'


def _tooltip(box: Box) -> str:
    return "\n".join([box.name, *(" ".join(part for part in fact[:2]) for fact in box.facts[:12])])
