"""A drawing as SVG, laid out here: no other program is needed to see it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape

from modelgraft.tools.draw.palette import known
from modelgraft.tools.draw.picture import Arrow, Box, Picture
from modelgraft.tools.draw.scene import LINE_HEIGHT, PAD, STRIP_HEIGHT, Level, Scene, Shape, frame_title, gates_above
from modelgraft.tools.draw.spent import CACHED
from modelgraft.tools.draw.styles import HEAT, LINE_PX, MARKS, NAME_PX, PAPER, PORT_PX, STYLE, mark, text, text_width

MARGIN = 24.0
LEGEND_GAP = 38.0  # from the lowest box to the legend
ROW = 18.0  # of the legend


def draw_svg(drawn: Picture) -> str:
    """Draw what was laid down in a Picture, as an SVG document without references to anything outside."""
    canvas, colours = _Canvas(drawn), drawn.colours
    body = [*canvas.frames(), *canvas.wires(), *canvas.boxes(), *canvas.heads(), *canvas.types(), *canvas.legend()]
    width, height = canvas.size()
    size = f'width="{width:.0f}" height="{height:.0f}"'
    families = dict.fromkeys(
        known(family, colours) for family in (*(a.family for a in drawn.arrows), *(b.family for b in drawn.boxes if b.family))
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" {size} role="img">',
            f"<title>{escape(drawn.name or 'graph')}</title><desc>{escape(drawn.doc)}</desc>",
            f"<style>{STYLE}\n{''.join(_family_rules(family, colours[family][0]) for family in families)}</style>",
            "<defs>",
            *map(_arrow_head, families),
            "</defs>",
            f'<rect {size} fill="{PAPER}" class="paper"/>',
            *body,
            "</svg>\n",
        ]
    )


def _family_rules(family: str, colour: str) -> str:
    name = f"f-{family}"
    wire, fills = f".wire.{name}, .plate.{name}", f".head.{name}, .type.{name}"
    end = f".end.{name} rect.frame {{ stroke: {colour}; fill: {colour}; }}"
    return f"{wire} {{ stroke: {colour}; }} {fills} {{ fill: {colour}; }} {end}\n"


def _arrow_head(family: str) -> str:
    return (
        f'<marker id="head-{family}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path class="head f-{family}" d="M0 0.5 L8 4 L0 7.5 z"/></marker>'
    )


class _Canvas:
    """Everything that is drawn, once the places are known."""

    def __init__(self, drawn: Picture) -> None:
        self.drawn, self.scene = drawn, Scene(drawn)
        whole = self.scene.whole
        self._across = max(whole.width, 340.0, min(sum(width for _, width in self._entries()), 560.0))
        whole_shift = MARGIN + (self._across - whole.width) / 2
        self.scene.levels = dict(self.scene._settled(whole, whole_shift, MARGIN))
        self._rows = self._legend_rows()

    def size(self) -> tuple[float, float]:
        """Width and height of the whole."""
        return self._across + 2 * MARGIN, self._legend_y() + ROW * (len(self._rows) - 1) + MARGIN

    def _legend_y(self) -> float:
        return MARGIN + self.scene.whole.height + LEGEND_GAP

    # -- inner graphs

    def frames(self) -> Iterator[str]:
        """The ground of inner graphs, below everything."""
        for level in self.scene.frames():
            where = f'x="{level.x:.1f}" y="{level.y:.1f}" width="{level.width:.1f}" height="{level.height:.1f}"'
            yield f'<g class="cluster" data-cluster="{escape(level.id)}"><rect class="frame" {where} rx="10" fill-opacity="0.07"/></g>'

    def heads(self) -> Iterator[str]:
        """Their names, over the wires that pass."""
        for level in self.scene.frames():
            yield self._head(level)

    def _head(self, level: Level) -> str:
        """The name, and what it is where no wire passes through the words."""
        name, rest = frame_title(level, self.drawn)
        x, y = level.x + 8, level.y + 7
        at = x + 18 + text_width(name, LINE_PX) * 1.08 + 4
        ends = [end for end in (at, at + text_width(rest, PORT_PX)) if not any(x < gate < end + 4 for gate in gates_above(level))]
        said = text("line bold", x + 18, y + 14, name, anchor="start")
        if len(ends) == 2:
            said += text("port", at, y + 14, rest, anchor="start")
        plate = f'<rect class="plate" x="{x:.1f}" y="{y:.1f}" width="{at - x:.1f}" height="20" rx="6" fill-opacity="{0 if ends else 0.9}"/>'
        fold = f'<path class="fold" d="M{x + 6:.1f} {y + 8:.1f} h7 l-3.5 5 z" fill="#64748b"/>'
        return (
            f'<g class="cluster-head" data-fold="{escape(level.id)}"><title>{escape(f"{level.id}: {rest}")}</title>{plate}{fold}{said}</g>'
        )

    # -- boxes

    def boxes(self) -> Iterator[str]:
        """Inputs, nodes and outputs."""
        for box in self.drawn.boxes:
            yield from self._box(box)

    def _box(self, box: Box) -> Iterator[str]:
        x, y, shape = self.scene.box(box.id)
        is_end = box.role in ("input", "output")
        left, radius = x - shape.width / 2, min(shape.height / 2, 18) if is_end else 7
        classes = " ".join(
            filter(None, ["box", box.role, box.mark, "idle" * box.idle, f"end f-{known(box.family, self.drawn.colours)}" * is_end])
        )
        fold = f' data-fold="{escape(box.id)}"' if box.role == "graph" else ""
        faint = ' opacity="0.45"' if box.idle else ""
        yield f'<g class="{classes}" data-id="{escape(box.id)}"{fold}{faint}><title>{escape(_tooltip(box))}</title>'
        if box.role == "graph":  # a stack: there is more below
            yield _frame(left + 4, y + 4, shape, radius, ' fill-opacity="0.5"')
        yield _frame(left, y, shape, radius, ' fill-opacity="0.07"' if is_end else "")
        line_y = y + PAD + 8
        if any(shape.ins):
            yield from self._port_names(shape.ins, x, y + 12)
            line_y += STRIP_HEIGHT
        yield from self._words(box, x, line_y)
        if box.time:
            yield from self._time(box, x, line_y + LINE_HEIGHT * len(box.lines), shape.width - 2 * PAD)
        if any(shape.outs):
            yield from self._port_names(shape.outs, x, y + shape.height - 5)
        yield "</g>"

    def _words(self, box: Box, x: float, y: float) -> Iterator[str]:
        shift = 9 if box.mark else 0
        yield text("name", x - shift, y, box.name)
        if box.mark:
            yield mark(box.mark, x - shift + text_width(box.name, NAME_PX) / 2 + 13, y - 4.5)
        for index, line in enumerate(box.lines, 1):
            yield text("line", x, y + LINE_HEIGHT * index, line)

    def _time(self, box: Box, x: float, y: float, width: float) -> Iterator[str]:
        """The time of a run, and below it a bar that tells its share of the whole."""
        yield text("time hit" if box.time == CACHED else "time", x, y + 16, box.time)
        if box.time != CACHED:
            where = f'x="{x - width / 2:.1f}" y="{y + 20:.1f}" height="3.5" rx="1.75"'
            yield f'<rect {where} width="{width:.1f}" fill="{HEAT}" fill-opacity="0.15"/>'
            if box.share > 0:
                yield f'<rect {where} width="{max(3.5, width * min(1.0, box.share)):.1f}" fill="{HEAT}"/>'

    def _port_names(self, ports: Mapping[str, float], x: float, y: float) -> Iterator[str]:
        for name, offset in ports.items():
            yield text("port", x + offset, y, name)

    # -- wires

    def wires(self) -> Iterator[str]:
        """The wires, below the boxes."""
        for arrow in self.drawn.arrows:
            kind, family = "wire route" if arrow.is_route else "wire", known(arrow.family, self.drawn.colours)
            ends = f'data-giver="{escape(arrow.giver)}" data-taker="{escape(arrow.taker)}"'
            yield f'<path class="{kind} f-{family}" {ends} d="{self.scene.wire(arrow)}" marker-end="url(#head-{family})"/>'

    def types(self) -> Iterator[str]:
        """The type of each output, once, on a plate at the start of its wires."""
        told = set[tuple[str, str]]()
        for arrow in self.drawn.arrows:
            if arrow.label and (arrow.giver, arrow.out) not in told:
                told.add((arrow.giver, arrow.out))
                x, top, shape = self.scene.box(arrow.giver)
                yield from _plate(arrow, known(arrow.family, self.drawn.colours), x + shape.outs[arrow.out], top + shape.height + 15)

    # -- legend

    def _entries(self) -> list[tuple[str, float]]:
        marks = [kind for kind in MARKS if any(box.mark == kind and box.role in ("node", "graph") for box in self.drawn.boxes)]
        there = {known(arrow.family, self.drawn.colours) for arrow in self.drawn.arrows}
        families = [family for family in self.drawn.colours if family in there]
        words = [f"mark:{kind}" for kind in marks] + families
        return [(word, text_width(MARKS.get(word.removeprefix("mark:"), word) if ":" in word else word, PORT_PX) + 38) for word in words]

    def _legend_rows(self) -> list[list[tuple[str, float]]]:
        """The entries in rows that are not wider than the drawing; what a run took has one of its own."""
        rows: list[list[tuple[str, float]]] = [[]]
        for word, width in self._entries():
            if rows[-1] and sum(taken for _, taken in rows[-1]) + width > self._across:
                rows.append([])
            rows[-1].append((word, width))
        return [*rows, [(f"run:{self.drawn.run}", 0.0)]] if self.drawn.run else rows

    def legend(self) -> Iterator[str]:
        """What colours and signs mean."""
        y = self._legend_y()
        for row in self._rows:
            x = MARGIN
            for word, width in row:
                yield from self._entry(word, x, y)
                x += width
            y += ROW

    def _entry(self, word: str, x: float, y: float) -> Iterator[str]:
        if word.startswith("mark:"):
            kind = word.removeprefix("mark:")
            yield f'<g class="box {kind}"><rect class="frame" x="{x:.1f}" y="{y - 9:.1f}" width="18" height="12" rx="3"/></g>'
            yield text("port", x + 24, y + 1, MARKS[kind], anchor="start")
        elif word.startswith("run:"):
            yield f'<rect x="{x:.1f}" y="{y - 5:.1f}" width="18" height="3.5" rx="1.75" fill="{HEAT}"/>'
            yield text("port", x + 24, y + 1, word.removeprefix("run:"), anchor="start")
        else:
            yield f'<path class="wire f-{word}" d="M{x:.1f} {y - 3:.1f} h18"/>'
            yield text("port", x + 24, y + 1, word, anchor="start")


def _frame(left: float, top: float, shape: Shape, radius: float, more: str) -> str:
    where = f'x="{left:.1f}" y="{top:.1f}" width="{shape.width:.1f}" height="{shape.height:.1f}" rx="{radius:.0f}"'
    return f'<rect class="frame" {where}{more}/>'


def _plate(arrow: Arrow, family: str, x: float, y: float) -> Iterator[str]:
    width = text_width(arrow.label, PORT_PX) + 12
    yield f'<rect class="plate f-{family}" x="{x - width / 2:.1f}" y="{y - 7:.1f}" width="{width:.1f}" height="14" rx="7"/>'
    yield text(f"type f-{family}", x, y + 3.5, arrow.label)


def _tooltip(box: Box) -> str:
    return "\n".join([box.name, *(" ".join(part for part in fact[:2]) for fact in box.facts[:12])])
