"""Cells as points: one figure against another, with names where there is room, intervals, and the front of those that none beats."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from modelgraft_plugins.benching.page.labels import Label, Spot, place
from modelgraft_plugins.benching.page.marks import kind, point
from modelgraft_plugins.benching.page.scales import Scale, front, is_figure, scale_over, tick_text

HEIGHT = 340  # of the area of the points, in pixels; its width is what the page has
WIDE = (390.0, 460.0, 540.0, 660.0, 900.0)  # widths of that area for which names are placed: on screens and paper
NARROW = (275.0, 310.0, 370.0, 450.0, 590.0)  # and on telephones, up to 700 px of a page
NAMED = 26  # names at most: of more points, those that stand out
FEW = 40  # points: of so many, intervals are drawn as well


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """What a chart is drawn over: what it is called, how its values are written, and how many ticks have room.

    is_even  never logarithmic: half as good is no step that means something
    """

    title: str
    say: Callable[[float], str]
    ticks: int = 6
    is_even: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A cell in a chart.

    row       the number of the cell on the page: a click leads to `#c{row}`
    low, high  of `y`; None: not known;  rank  the lowest are named first
    """

    row: int
    x: float
    y: float
    name: str
    title: str
    mark: int = 0
    low: float | None = None
    high: float | None = None
    is_baseline: bool = False
    rank: int = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A scatter chart.

    higher  whether more of `y` is better, for the front; None: no front
    left_out  what is not in it, and why
    """

    title: str
    x: Axis
    y: Axis
    points: Sequence[Point]
    higher: bool | None = None
    left_out: str = ""


def draw(chart: Chart) -> str:
    """Draw a chart as a figure."""
    across = scale_over((point.x for point in chart.points), most=chart.x.ticks)
    few = len(chart.points) <= FEW
    ends = [end for one in chart.points if few for end in (one.low, one.high) if is_figure(end)]
    heights = [*(one.y for one in chart.points), *(end for end in ends if end is not None)]
    down = scale_over(heights, most=chart.y.ticks, is_log=False if chart.y.is_even else None)
    best = front([(one.x, one.y) for one in chart.points], higher=chart.higher) if chart.higher is not None else []
    body = [
        *_grid(across, down),
        _steps(chart.points, best, across, down),
        *(_whisker(one, across, down) for one in chart.points if few),
        *(_mark(one, across, down, is_best=index in best) for index, one in enumerate(chart.points)),
        *_names(chart.points, best, across, down),
    ]
    said = [_words(chart, across, down, best), chart.left_out]
    return (
        f"<figure class=scatter><figcaption><h3>{escape(chart.title)}</h3><p>{escape(' '.join(filter(None, said)))}</p></figcaption>"
        f"<div class=plot><svg class=ys width=58 height={HEIGHT} aria-hidden=true>{''.join(_upright(down, chart.y))}</svg>"
        f'<svg class=area height={HEIGHT} role=group aria-label="{escape(chart.title)}">{"".join(body)}</svg>'
        f"<svg class=xs height=34 aria-hidden=true>{''.join(_along(across, chart.x))}</svg></div>{_listed(chart, best)}</figure>"
    )


def _listed(chart: Chart, best: Sequence[int]) -> str:
    """The front as a list: names do not always have room at their points."""
    if len(best) < 2:
        return ""
    lines = (
        f"<li><a href=#c{one.row}>{escape(one.name)}</a> {escape(chart.x.say(one.x))}, {escape(chart.y.say(one.y))}"
        for one in (chart.points[index] for index in best)
    )
    return f"<details class=best><summary>The front, from the fastest to the best</summary><ol>{''.join(lines)}</ol></details>"


def _words(chart: Chart, across: Scale, down: Scale, best: Sequence[int]) -> str:
    logs = [axis for axis, scale in (("across", across), ("upright", down)) if scale.is_log]
    parts = ["" if not logs else "Both axes are logarithmic." if len(logs) == 2 else f"The axis {logs[0]} is logarithmic."]
    if chart.higher is not None:
        parts.append(f"The line is the front: {len(best)} of {len(chart.points)}, which no other beats in both.")
    return " ".join(filter(None, parts))


def _share(value: float) -> str:
    return f"{100 * value:.3g}%"


def _y(scale: Scale, value: float) -> float:
    return round(HEIGHT * (1 - scale.at(value)))


def _grid(across: Scale, down: Scale) -> Iterator[str]:
    for tick in across.ticks:
        x = _share(across.at(tick))
        yield f"<line class=grid x1={x} x2={x} y1=0 y2={HEIGHT} />"
    for tick in down.ticks:
        yield f"<line class=grid x1=0 x2=100% y1={_y(down, tick)} y2={_y(down, tick)} />"
    yield f"<line class=rule x1=0 x2=100% y1={HEIGHT} y2={HEIGHT} /><line class=rule x1=0 x2=0 y1=0 y2={HEIGHT} />"


def _upright(scale: Scale, axis: Axis) -> Iterator[str]:
    yield f"<text class=axis x=8 y=-9>↑ {escape(axis.title)}</text>"
    for tick in scale.ticks:
        yield f"<text class=tick x=52 y={_y(scale, tick) + 4} text-anchor=end>{escape(tick_text(tick, axis.say))}</text>"


def _along(scale: Scale, axis: Axis) -> Iterator[str]:
    for tick in scale.ticks:
        yield f"<text class=tick x={_share(scale.at(tick))} y=14 text-anchor=middle>{escape(tick_text(tick, axis.say))}</text>"
    yield f"<text class=axis x=100% y=30 text-anchor=end>{escape(axis.title)} →</text>"


def _steps(points: Sequence[Point], best: Sequence[int], across: Scale, down: Scale) -> str:
    """The front as stairs: what can be had for so much time. It is stretched with the chart, and its line is not."""
    corners = [(100 * across.at(points[index].x), 100 * (1 - down.at(points[index].y))) for index in best]
    if len(corners) < 2:
        return ""
    path = f"M{corners[0][0]:.4g} {corners[0][1]:.4g}" + "".join(f"H{x:.4g}V{y:.4g}" for x, y in corners[1:])
    return (
        f"<svg width=100% height={HEIGHT} viewBox='0 0 100 100' preserveAspectRatio=none>"
        f"<path class=front vector-effect=non-scaling-stroke d='{path}'/></svg>"
    )


def _whisker(one: Point, across: Scale, down: Scale) -> str:
    if one.low is None or one.high is None or not (is_figure(one.low) and is_figure(one.high)):
        return ""
    x = _share(across.at(one.x))
    return f'<line class="whisker {kind(one.mark)}" x1={x} x2={x} y1={_y(down, one.low)} y2={_y(down, one.high)} />'


def _mark(one: Point, across: Scale, down: Scale, *, is_best: bool) -> str:
    x, y = _share(across.at(one.x)), f"{_y(down, one.y):g}"
    ring = f"<circle class=ring r=9 cx={x} cy={y} />" if one.is_baseline else ""
    classes = f"{kind(one.mark)}{' best' * is_best}"
    classes = f'"{classes}"' if " " in classes else classes
    title = f"<title>{escape(one.title)}</title>" if one.title else ""
    return f"<a href=#c{one.row} class={classes}>{ring}{point(one.mark, x=x, y=y)}{title}</a>"


def _names(points: Sequence[Point], best: Sequence[int], across: Scale, down: Scale) -> Iterator[str]:
    order = sorted(range(len(points)), key=lambda index: (index not in best, not points[index].is_baseline, points[index].rank, index))
    named = set(order[:NAMED])
    spots = [Spot(across.at(points[index].x), _y(down, points[index].y), points[index].name if index in named else "") for index in order]
    for which, widths in (("w", WIDE), ("n", NARROW)):
        for label in place(spots, widths=widths, height=HEIGHT):
            yield _name(label, which)


def _name(label: Label, which: str) -> str:
    anchor = "" if label.anchor == "start" else f" text-anchor={label.anchor}"
    x, y = _share(label.spot.x), f"{label.spot.y + label.dy:g}"
    return f'<text class="name {which}" x={x} y={y} dx={label.dx:g}{anchor}>{escape(label.spot.name)}</text>'
