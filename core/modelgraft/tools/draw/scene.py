"""Where everything of a drawing is: each graph is laid out in itself, and stands in the graph around it as one large box.

A wire that leads into an inner graph goes through a gate in its upper edge, one that leads out through a gate in its lower edge.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from modelgraft.tools.draw.folding import ancestors, clusters, home_of
from modelgraft.tools.draw.picture import Arrow, Box, Picture
from modelgraft.tools.draw.places import Placed, place
from modelgraft.tools.draw.styles import LINE_PX, NAME_PX, PORT_PX, text_width

PAD = 14.0  # between the words of a box and its edge
LINE_HEIGHT, STRIP_HEIGHT = 15.0, 13.0  # a line of text in a box; the strip with the names of ports
TIME_HEIGHT = 24.0  # the time of a run, with its bar
LAYER_GAP = 60.0  # room for the types on the wires between two layers
PLATE_HEIGHT = 24.0  # from the box to the lower edge of the plate with the type
HEAD_HEIGHT = 40.0  # of an inner graph: its name, and room below it
INSET = 16.0  # from the edge of an inner graph to what is in it
GATE_WIDTH = 12.0
_IN, _OUT = "\0in\0", "\0out\0"  # what gates are called: names of nodes cannot begin so


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of a box, and its ports with the place of each, relative to its middle."""

    width: float
    height: float
    ins: Mapping[str, float] = field(default_factory=dict)
    outs: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Local:
    """A wire, or a part of one, as a graph sees it: between two of its own boxes, inner graphs and gates."""

    arrow: Arrow
    start: str
    end: str
    out: str
    into: str


class _Wires:
    """The wires that a graph sees, by what is asked of them."""

    def __init__(self, wires: Iterable[Local]) -> None:
        self.all = tuple(wires)
        self.of = {one.arrow: one for one in self.all}
        self.into, self.out_of = defaultdict[str, list[Local]](list), defaultdict[str, list[Local]](list)
        self.alike = defaultdict[tuple[str, str], list[Local]](list)
        for one in self.all:
            self.into[one.end].append(one)
            self.out_of[one.start].append(one)
            self.alike[one.start, one.end].append(one)


@dataclass(slots=True)
class Level:
    """A graph laid out in itself, from its upper left corner.

    id  "" for the whole;  inner  the graphs in it, by id;  wires  those that it sees
    """

    id: str
    wires: _Wires
    placed: Placed
    shapes: dict[str, Shape]
    inner: dict[str, Level]
    top: dict[str, float] = field(default_factory=dict)
    bottom: dict[str, float] = field(default_factory=dict)
    rows: dict[str, tuple[float, float]] = field(default_factory=dict)  # of each box: where its layer begins and ends
    left: float = 0.0  # from the corner to where the places begin
    width: float = 0.0
    height: float = 0.0
    x: float = 0.0  # of the corner, once the whole is known
    y: float = 0.0

    def middle(self, id: str) -> float:
        """The middle of a box on the whole."""
        return self.x + self.left + self.placed.x[id]


class Scene:
    """A picture with the place of everything; `levels` has each graph in it, the whole first."""

    def __init__(self, drawn: Picture) -> None:
        self.drawn = drawn
        self._boxes = {box.id: box for box in drawn.boxes}
        self._homes = {box.id: home_of(box) for box in drawn.boxes}
        self._clusters = clusters(drawn)
        self._coming, self._going = defaultdict[str, list[Arrow]](list), defaultdict[str, list[Arrow]](list)
        for arrow in drawn.arrows:
            self._going[arrow.giver].append(arrow)
            self._coming[arrow.taker].append(arrow)
        self.whole = self._level("")
        self.levels = dict(self._settled(self.whole, 0.0, 0.0))

    def box(self, id: str) -> tuple[float, float, Shape]:
        """The middle, the upper edge and the shape of a box."""
        level = self.levels[self._homes[id]]
        return level.middle(id), level.y + level.top[id], level.shapes[id]

    def frames(self) -> Iterator[Level]:
        """The inner graphs, outer before inner."""
        return (self.levels[id] for id in self._clusters)

    # -- one graph ------------------------------------------------------------------------------------------------------

    def _level(self, id: str) -> Level:
        inner = {one: self._level(one) for one in self._clusters if one.rpartition("/")[0] == id}
        wires = _Wires(self._locals(id))
        shapes = {one: _outside(level) for one, level in inner.items()}
        gates = dict.fromkeys(end for local in wires.all for end in (local.start, local.end) if end[:1] == "\0")
        shapes |= {gate: Shape(GATE_WIDTH, 0.0, {"": 0.0}, {"": 0.0}) for gate in gates}
        own = [box for box in self.drawn.boxes if self._homes[box.id] == id]
        widths = {box.id: _width(box, self._coming[box.id], self._going[box.id]) for box in own}
        widths = {**widths, **{one: shape.width for one, shape in shapes.items()}}
        first = [gate for gate in gates if gate.startswith(_IN)]
        last = [gate for gate in gates if gate.startswith(_OUT)]
        gated = [one for one in wires.all if one.start in inner or one.end in inner]
        ends = {
            (one.start, one.end): (
                shapes[one.start].outs[one.out] if one.start in inner else 0.0,
                shapes[one.end].ins[one.into] if one.end in inner else 0.0,
            )
            for one in gated
        }
        placed = place(widths, [(local.start, local.end) for local in wires.all], first=first, last=last, ends=ends)
        level = Level(id, wires, placed, shapes, inner)
        for box in own:
            shapes[box.id] = self._shape(box, widths[box.id], level)
        self._measure(level, has_gates=(bool(first), bool(last)))
        return level

    def _locals(self, id: str) -> Iterator[Local]:
        """The wires that a graph sees. Those within one of its inner graphs are not among them."""
        for arrow in self.drawn.arrows:
            start, end = self._seen(arrow.giver, id), self._seen(arrow.taker, id)
            if start == end or (start is None and end is None):
                continue
            gate = f"{arrow.giver}\0{arrow.out}"
            yield Local(
                arrow,
                start or _IN + gate,
                end or _OUT + gate,
                arrow.out if start == arrow.giver else "" if start is None else gate,
                arrow.into if end == arrow.taker else "" if end is None else gate,
            )

    def _seen(self, box: str, id: str) -> str | None:
        """What a graph has of a box: the box itself, the inner graph that it lies in, or None when it lies outside."""
        home = self._homes[box]
        if home == id:
            return box
        if id and not home.startswith(f"{id}/"):
            return None
        return next((one for one in ancestors(self._boxes[box]) if one.rpartition("/")[0] == id), None)

    def _shape(self, box: Box, width: float, level: Level) -> Shape:
        ins = self._in_order(level.wires.into[box.id], level, side=-2)
        outs = self._in_order(level.wires.out_of[box.id], level, side=1)
        strips = STRIP_HEIGHT * (any(ins) + any(outs))
        height = PAD + NAME_PX + LINE_HEIGHT * len(box.lines) + 8 + strips + (TIME_HEIGHT if box.time else 0.0)
        takes, gives = _slots(self._coming[box.id], self._going[box.id])
        return Shape(width, height, _spaced(ins, width, takes), _spaced(outs, width, gives))

    def _in_order(self, wires: Iterable[Local], level: Level, *, side: int) -> list[str]:
        """The names of the ports, sorted by where their wires lead, so that wires of one box do not cross."""
        ends: dict[str, list[float]] = defaultdict(list)
        for local in wires:
            path = level.placed.paths[local.start, local.end]
            other = path[side]
            shape = level.shapes.get(other) if other in level.inner else None
            aside = 0.0 if shape is None else shape.ins.get(local.into, 0.0) if side == 1 else shape.outs.get(local.out, 0.0)
            ends[local.out if side == 1 else local.into].append(level.placed.x[other] + aside)
        return sorted(ends, key=lambda name: sum(ends[name]) / len(ends[name]))

    def _measure(self, level: Level, *, has_gates: tuple[bool, bool]) -> None:
        """Find the rows of a level, and its size."""
        is_whole, runs = not level.id, _runs(level)
        y = 0.0 if is_whole or has_gates[0] else HEAD_HEIGHT
        layers = level.placed.layers
        for number, layer in enumerate(layers):
            height = max((level.shapes[id].height for id in layer if id in level.shapes), default=20.0)
            for id in layer:
                level.rows[id] = y, y + height
                own = level.shapes[id].height if id in level.shapes else height
                level.top[id], level.bottom[id] = y + (height - own) / 2, y + (height + own) / 2
            y += height
            if number + 1 < len(layers):
                y += LAYER_GAP + min(90.0, max((runs[id] for id in layer), default=0.0) * 0.08)  # wires that run far need more room
        content = max((level.placed.x[id] + shape.width / 2 for id, shape in level.shapes.items()), default=0.0)
        if is_whole:
            level.width, level.height = content, y
            return
        level.width = max(content + 2 * INSET, text_width(" ".join(frame_title(level, self.drawn)), LINE_PX) + 3 * INSET)
        level.left = (level.width - content) / 2
        level.height = y + (0.0 if has_gates[1] else INSET)

    def _settled(self, level: Level, x: float, y: float) -> Iterator[tuple[str, Level]]:
        level.x, level.y = x, y
        yield level.id, level
        for id, inner in level.inner.items():
            yield from self._settled(inner, level.middle(id) - inner.width / 2, y + level.top[id])

    # -- wires ----------------------------------------------------------------------------------------------------------

    def wire(self, arrow: Arrow) -> str:
        """The path of a wire, through the gates of the graphs on its way."""
        outer = [*reversed(self._around(arrow.giver)), *self._around(arrow.taker)]
        parts: list[str] = []
        for id in dict.fromkeys(outer):
            level = self.levels[id]
            local = level.wires.of.get(arrow)
            if local is not None:
                parts += self._part(level, local, is_start=not parts)
        return " ".join(parts)

    def _around(self, box: str) -> list[str]:
        """The graphs around a box, the whole first."""
        return ["", *ancestors(self._boxes[box])]

    def _part(self, level: Level, local: Local, *, is_start: bool) -> Iterator[str]:
        """The part of a wire in one graph."""
        path = level.placed.paths[local.start, local.end]
        x, y = level.middle(path[0]) + level.shapes[path[0]].outs[local.out], level.y + level.bottom[path[0]]
        if is_start:
            yield f"M{x:.1f} {y:.1f}"
        if is_start and local.arrow.label:  # straight down behind the plate with the type
            y += PLATE_HEIGHT
            yield f"L{x:.1f} {y:.1f}"
        if y < (edge := level.y + level.rows[path[0]][1]):  # past what is taller beside it
            y = edge
            yield f"L{x:.1f} {y:.1f}"
        aside = _aside(level, local)
        for id in path[1:]:
            is_end = id == local.end
            next_x = level.middle(id) + (level.shapes[id].ins[local.into] if is_end else aside)
            top, bottom = (level.y + edge for edge in level.rows[id])
            next_y = min(top, level.y + level.top[id] - (1 if id == local.arrow.taker else 0))
            middle = (y + next_y) / 2
            yield f"C{x:.1f} {middle:.1f} {next_x:.1f} {middle:.1f} {next_x:.1f} {next_y:.1f}"
            x, y = next_x, level.y + level.top[id] - (1 if id == local.arrow.taker else 0) if is_end else bottom
            if y > next_y:
                yield f"L{x:.1f} {y:.1f}"


def frame_title(level: Level, drawn: Picture) -> tuple[str, str]:
    """What stands at the head of an inner graph: its name, and what it is."""
    count = sum(level.id in ancestors(box) for box in drawn.boxes)
    return level.id.rpartition("/")[2], f"graph of {count} node{'s' * (count != 1)}"


def gates_above(level: Level) -> list[float]:
    """Where wires come into an inner graph, on the whole."""
    return [level.middle(gate) for gate in level.shapes if gate.startswith(_IN)]


def _outside(level: Level) -> Shape:
    """An inner graph as the one around it sees it: its gates are its ports."""
    half = level.width / 2
    places = {gate: level.left + level.placed.x[gate] - half for gate in level.shapes if gate[:1] == "\0"}
    ins = {gate.removeprefix(_IN): place for gate, place in places.items() if gate.startswith(_IN)}
    outs = {gate.removeprefix(_OUT): place for gate, place in places.items() if gate.startswith(_OUT)}
    return Shape(level.width, level.height, ins, outs)


def _width(box: Box, coming: Iterable[Arrow], going: Iterable[Arrow]) -> float:
    """Wide enough for the words, the names of the ports and the types on the wires below."""
    mark = 20.0 if box.mark else 0.0
    words = [text_width(box.name, NAME_PX) * 1.08 + mark, *(text_width(line, LINE_PX) for line in (*box.lines, box.time))]
    takes, gives = _slots(coming, going)
    return max(84.0, max(words) + 2 * PAD, sum(takes.values()) + PAD, sum(gives.values()))


def _slots(coming: Iterable[Arrow], going: Iterable[Arrow]) -> tuple[dict[str, float], dict[str, float]]:
    """How much room each port takes, by name: for its name, and below a box for the plate with its type too."""
    takes = {arrow.into: text_width(arrow.into, PORT_PX) + 12 for arrow in coming}
    gives = {arrow.out: max(text_width(arrow.out, PORT_PX), text_width(arrow.label, PORT_PX) + 12) + 10 for arrow in going}
    return takes, gives


def _spaced(names: list[str], width: float, slots: Mapping[str, float]) -> dict[str, float]:
    """The middle of each port from that of the box: as much room as each takes, and an equal share of the rest."""
    spare = (width - sum(slots[name] for name in names)) / max(1, len(names))
    found, x = dict[str, float](), -width / 2
    for name in names:
        found[name] = x + (slots[name] + spare) / 2
        x += slots[name] + spare
    return found


def _runs(level: Level) -> dict[str, float]:
    """How far to the side the wires run that start at each box or bend."""
    runs: dict[str, float] = defaultdict(float)
    for path in level.placed.paths.values():
        for upper, lower in pairwise(path):
            runs[upper] = max(runs[upper], abs(level.placed.x[upper] - level.placed.x[lower]))
    return runs


def _aside(level: Level, local: Local) -> float:
    """How far from the middle of a bend a wire passes: wires between the same two boxes run side by side."""
    outs, ins = level.shapes[local.start].outs, level.shapes[local.end].ins
    alike = level.wires.alike[local.start, local.end]
    beside = sorted({(ins[one.into], outs[one.out]) for one in alike})
    return 5.0 * (beside.index((ins[local.into], outs[local.out])) - (len(beside) - 1) / 2)
