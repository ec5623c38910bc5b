"""The charts of a bench: which cells stand in each, and what is told of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from modelgraft.commands import in_seconds, short_count
from modelgraft_plugins.benching.page import strips
from modelgraft_plugins.benching.page.amounts import interval, latency, per_cent, plain_number, times
from modelgraft_plugins.benching.page.marks import Marks
from modelgraft_plugins.benching.page.naming import Names
from modelgraft_plugins.benching.page.scales import front
from modelgraft_plugins.benching.page.scatter import Axis, Chart, Point, draw
from modelgraft_plugins.benching.page.strips import Row
from modelgraft_plugins.benching.page.tables import quality_of
from modelgraft_plugins.benching.page.thinning import Room
from modelgraft_plugins.benching.results import Cell, Ratio, Results

TIME = Axis(title="time of a call", say=in_seconds, ticks=5)
APART = 6  # between the longest call and the shortest; over more, bars are as long as each other


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What all charts need: the measured cells that a page has room for, their rows, names and marks, and the front of any metric."""

    results: Results
    cells: Sequence[Cell]
    rows: Mapping[str, int]
    names: Names
    marks: Marks
    room: Room

    def title(self, cell: Cell, *more: str) -> str:
        """What a pointer on a cell tells: its name, figures, and the line that measures it; "" where the script puts it together."""
        return "\n".join([self.names.of[cell.id], *filter(None, more), cell.command]) if self.room.is_full else ""


def scatters(shown: Shown) -> str:
    """Time against size, and quality against time for every metric."""
    drawn = [_against_parameters(shown), *(_quality(shown, *key) for key in metrics(shown.cells))]
    figures = [draw(chart) for chart in drawn if chart.points]
    columns = {1: " alone", 2: " even", 4: " even"}.get(len(figures), "")
    return f"<div class='charts{columns}'>{''.join(figures)}</div>" if figures else ""


def metrics(cells: Sequence[Cell]) -> list[tuple[str, str]]:
    """Metric and output of each quality that some cell has."""
    return list(dict.fromkeys((one.metric, one.output) for cell in cells for one in cell.quality))


def on_a_front(cells: Sequence[Cell]) -> set[str]:
    """The cells that none beats in time and some metric."""
    found = set()
    for key in metrics(cells):
        pairs = [(cell, time, one) for cell in cells if (time := latency(cell)) and (one := quality_of(cell, *key))]
        pairs = [pair for pair in pairs if math.isfinite(pair[2].value)]
        if pairs:
            best = front([(time, one.value) for _, time, one in pairs], higher=pairs[0][2].better == "higher")
            found |= {pairs[index][0].id for index in best}
    return found


def _against_parameters(shown: Shown) -> Chart:
    points, without = [], 0
    for cell in shown.cells:
        time = latency(cell)
        if time is None or not cell.parameters:
            without += 1
            continue
        title = shown.title(cell, f"{in_seconds(time)}, {short_count(cell.parameters)} parameters")
        points.append(_point(shown, cell, x=cell.parameters, y=time, title=title, low=_end(cell, high=False), high=_end(cell, high=True)))
    size = Axis(title="parameters", say=lambda value: short_count(round(value)), ticks=5)
    left_out = f"{without} without known parameters or time are not drawn." if without else ""
    return Chart(title="Time against size", x=size, y=TIME, points=_ranked(points), left_out=left_out)


def _end(cell: Cell, *, high: bool) -> float | None:
    """An end of the interval of the time of a call, which is a median."""
    return None if cell.wall_s is None else cell.wall_s.high if high else cell.wall_s.low


def _quality(shown: Shown, metric: str, output: str) -> Chart:
    points, higher, unit = [], True, ""
    for cell in shown.cells:
        time, one = latency(cell), quality_of(cell, metric, output)
        if time is None or one is None or not math.isfinite(one.value):
            continue
        higher, unit = one.better == "higher", one.unit
        title = shown.title(cell, f"{metric} {plain_number(one.value)} {interval(one)}".strip(), in_seconds(time))
        points.append(_point(shown, cell, x=time, y=one.value, title=title, low=one.low, high=one.high))
    without = len(shown.cells) - len(points)
    said = [f"{'More' if higher else 'Less'} is better{f', in {unit}' if unit else ''}.", f"{without} have no {metric}." if without else ""]
    title = f"{metric} against time"
    return Chart(
        title=title if len({one for one, _ in metrics(shown.cells)}) == len(metrics(shown.cells)) else f"{title}, of {output}",
        x=TIME,
        y=Axis(title=metric, say=plain_number, is_even=True),
        points=_ranked(points),
        higher=higher,
        left_out=" ".join(filter(None, said)),
    )


def _point(shown: Shown, cell: Cell, *, x: float, y: float, title: str, low: float | None, high: float | None) -> Point:
    return Point(
        row=shown.rows[cell.id],
        x=x,
        y=y,
        name=shown.names.of[cell.id],
        title=title,
        mark=shown.marks.first(cell),
        low=low,
        high=high,
        is_baseline=cell.id == shown.results.baseline,
    )


def _ranked(points: Sequence[Point]) -> list[Point]:
    """Points in the order in which a keyboard goes through them: from left to right."""
    return sorted(points, key=lambda point: (point.x, point.y))


def ratios(shown: Shown) -> str:
    """Each cell over the baseline, the fastest first."""
    compared = [
        (cell, cell.ratio) for cell in shown.cells if cell.ratio and cell.ratio.wall.value > 0 and math.isfinite(cell.ratio.wall.value)
    ]
    if len(compared) < 2:
        return ""
    compared.sort(key=lambda pair: pair[1].wall.value)
    kept = _kept([cell for cell, _ in compared], shown)
    scale = strips.ratio_scale([ratio for _, ratio in compared])
    lines = [
        strips.ratio_strip(
            Row(
                row=shown.rows[cell.id],
                name=shown.names.of[cell.id],
                told=_verdict(ratio, f"{times(ratio.wall.value)} {interval(ratio.wall)}".strip()),
                title=shown.title(cell, f"CPU {times(ratio.cpu.value)}", ratio.warning),
            ),
            ratio,
            scale,
        )
        for cell, ratio in compared
        if cell.id in kept
    ]
    bare = sum(ratio.verdict != "baseline" and (ratio.wall.low is None or ratio.wall.high is None) for _, ratio in compared)
    unseen = sum(ratio.verdict == "no difference seen" for _, ratio in compared) - bare
    note = f"{unseen} show no difference. " if unseen > 0 else ""
    note += f"{bare} have too few rounds for an interval, and so for a verdict. " if bare else ""
    words = (
        f"The median of the ratios within rounds, with its 95 % interval, on a logarithmic axis. {note}{_left(len(lines), len(compared))}"
    )
    axis = f"<div class='row foot'><span></span><svg height=16>{strips.ratio_axis(scale)}</svg><span></span></div>"
    return f"<p>{words}</p>{KEY}<div class='strips forest'>{''.join(lines)}{axis}</div>"


KEY = (
    "<p class=legend><span class=faster><svg width=16 height=16><use href=#s4 x=8 y=8 /></svg><i>faster</i></span>"
    "<span class=slower><svg width=16 height=16><use href=#s2 x=8 y=8 /></svg><i>slower</i></span>"
    "<span class=no><svg width=16 height=16><use href=#s0 x=8 y=8 /></svg><i>no difference seen</i></span>"
    "<span class=baseline><svg width=16 height=16><use href=#s3 x=8 y=8 /></svg><i>baseline</i></span></p>"
)


def _verdict(ratio: Ratio, text: str) -> str:
    """A verdict without an interval would be none."""
    if ratio.verdict.startswith("no") and ratio.wall.low is None:
        return f"{text} too few rounds"
    return f"{text} {'no difference' if ratio.verdict.startswith('no') else ratio.verdict}"


def bars(shown: Shown) -> str:
    """Where the time of a call goes, by node, with a name for what no node does."""
    timed = [(cell, cell.shares) for cell in shown.cells if cell.shares and cell.shares.wall_s > 0]
    if not timed:
        return ""
    timed.sort(key=lambda pair: pair[1].wall_s)
    totals: dict[str, float] = {}
    for _, shares in timed:  # parts of each whole, so that a slow cell does not decide what is named
        for node, spent in shares.nodes.items():
            totals[node] = totals.get(node, 0.0) + spent / shares.wall_s
    parts = strips.parts_of(
        sorted(totals, key=lambda node: -totals[node]), list({name: None for _, shares in timed for name in shares.rest})
    )
    longest, shortest = timed[-1][1].wall_s, timed[0][1].wall_s
    is_even = longest > APART * shortest
    kept = _kept([cell for cell, _ in timed], shown)
    lines = [
        strips.bar(_bar_row(shown, cell), list(_sizes(cell, parts)), shares.wall_s if is_even else longest)
        for cell, shares in timed
        if cell.id in kept
    ]
    scale = "as parts of each call: the times are too far apart for one scale" if is_even else "all on one scale"
    words = f"The mean call by node, and in greys what no node does. The parts add up to the whole; bars are {scale}."
    return f"<p>{words} {_left(len(lines), len(timed))}</p>{strips.legend(parts)}<div class=strips>{''.join(lines)}</div>"


def _sizes(cell: Cell, parts: Mapping[str, str]) -> Iterator[tuple[str, float]]:
    """The classes and seconds of a bar, in the order of the legend; nodes without a hue are one part."""
    assert cell.shares is not None
    sizes: dict[str, float] = {}
    for name, kind in parts.items():
        rest = name.removeprefix("rest ")
        spent = cell.shares.rest.get(rest, 0.0) if rest != name else cell.shares.nodes.get(name, 0.0)
        sizes[kind] = sizes.get(kind, 0.0) + spent
    yield from sizes.items()


def _bar_row(shown: Shown, cell: Cell) -> Row:
    assert cell.shares is not None
    spent = {**cell.shares.nodes, **cell.shares.rest}
    longest = sorted(spent, key=lambda name: -spent[name])[:6]
    told = ", ".join(f"{name} {per_cent(spent[name] / cell.shares.wall_s)}" for name in longest)
    overlap = f"beside each other: {in_seconds(cell.shares.overlapped_s)}" if cell.shares.overlapped_s > 0 else ""
    return Row(
        row=shown.rows[cell.id], name=shown.names.of[cell.id], told=in_seconds(cell.shares.wall_s), title=shown.title(cell, told, overlap)
    )


def _kept(cells: Sequence[Cell], shown: Shown) -> set[str]:
    """The cells that have room in a chart of strips: the baseline, those on a front, then from the first on."""
    best = on_a_front(shown.cells)
    order = sorted(range(len(cells)), key=lambda index: (cells[index].id != shown.results.baseline, cells[index].id not in best, index))
    return {cells[index].id for index in order[: shown.room.strips]}


def _left(drawn: int, every: int) -> str:
    return "" if drawn == every else f"Here are {drawn} of {every}: the baseline, those on a front, then the fastest; the JSON has all."
