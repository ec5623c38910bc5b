"""Rows of strips: the parts of a call as stacked bars, and ratios with their intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from modelgraft_plugins.benching.page.amounts import times
from modelgraft_plugins.benching.page.marks import HUES
from modelgraft_plugins.benching.page.scales import Scale, scale_over, tick_text
from modelgraft_plugins.benching.results import Ratio

OWN = len(HUES) - 1  # nodes with a colour of their own; the others are one part
OTHERS = f"k{OWN}"
LEFT = ("inputs", "scheduler", "copies", "waiting", "outputs")  # what no node does, in the order of a run; others by name after them
LEAST = 0.003  # of a bar: what is narrower is not drawn, but counted
TICKS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A cell in a chart of strips: the number of its row, what it is called, what stands at the end, and what a pointer tells."""

    row: int
    name: str
    told: str
    title: str


def parts_of(nodes: Sequence[str], rest: Sequence[str]) -> dict[str, str]:
    """The class of every part, in the order of the bars: nodes first, those that take most with a hue, then what no node does."""
    hued = {node: f"k{index}" if index < OWN else OTHERS for index, node in enumerate(nodes)}
    ordered = [*(name for name in LEFT if name in rest), *sorted(set(rest) - set(LEFT))]
    return {**hued, **{f"rest {name}": f"r{index % len(LEFT)}" for index, name in enumerate(ordered)}}


def bar(row: Row, parts: Sequence[tuple[str, float]], whole: float) -> str:
    """A stacked bar: classes and their sizes, out of what the full width stands for."""
    drawn, at = [], 0.0
    for kind, size in parts:
        if size / whole >= LEAST:
            drawn.append(f"<rect class={kind} x={100 * at / whole:.4g}% width={100 * size / whole:.3g}% />")
        at += size
    return _strip(row, "".join(drawn))


def legend(parts: Mapping[str, str]) -> str:
    """What the parts of the bars mean."""
    others = [name for name, kind in parts.items() if kind == OTHERS]
    words = {kind: name.removeprefix("rest ") for name, kind in parts.items()}
    if len(others) > 1:
        words[OTHERS] = f"{len(others)} other nodes"
    entries = "".join(
        f"<span><svg width=16 height=12><rect class={kind} width=16 height=12 /></svg><i>{escape(text)}</i></span>"
        for kind, text in words.items()
    )
    return f"<p class=legend>{entries}</p>"


def ratio_scale(ratios: Sequence[Ratio]) -> Scale:
    """A logarithmic axis on which all ratios lie, and 1."""
    ends = [end for ratio in ratios for end in (ratio.wall.value, ratio.wall.low, ratio.wall.high) if end is not None and end > 0]
    return scale_over([1.0, *ends], most=TICKS, is_log=True)


def ratio_strip(row: Row, ratio: Ratio, scale: Scale) -> str:
    """A ratio as a mark on the line of its interval. Hollow where no difference is seen: that is no finding."""
    low, high = ratio.wall.low, ratio.wall.high
    one = f"<line class=one x1={_at(scale, 1)} x2={_at(scale, 1)} y1=0 y2=100% />"
    line = f"<line class=span x1={_at(scale, low)} x2={_at(scale, high)} y1=8 y2=8 />" if low and high else ""
    mark = {"faster": "s4", "slower": "s2", "baseline": "s3"}.get(ratio.verdict, "s0")
    return _strip(row, f"{one}{line}<use href=#{mark} x={_at(scale, ratio.wall.value)} y=8 />", kind=ratio.verdict.partition(" ")[0])


def ratio_axis(scale: Scale) -> str:
    """The ticks under the ratios."""
    return "".join(f"<text class=tick x={_at(scale, tick)} y=12 text-anchor=middle>{tick_text(tick, times)}</text>" for tick in scale.ticks)


def _at(scale: Scale, value: float) -> str:
    return f"{100 * scale.at(value):.4g}%"


def _strip(row: Row, body: str, *, kind: str = "") -> str:
    name = f"<span class=who>{escape(row.name)}</span>"
    told = f"<span class=told>{escape(row.told)}</span>"
    classes = f'"row {kind}"' if kind else "row"
    title = f' title="{escape(row.title)}"' if row.title else ""
    return f"<a href=#c{row.row} class={classes}{title}>{name}<svg>{body}</svg>{told}</a>"


def patterns() -> str:
    """The patterns that tell parts apart without their hue: hatches over nodes in turn, and greys of their own for what no node does."""
    return "".join(_patterns())


HATCHES = ("", "M0 6L6 0", "", "M0 0L6 6", "M0 3H6", "M3 0V6", "M0 6L6 0M0 0L6 6")
GREYS = ("M0 0", "M0 8L8 0", "M0 4H8", "M4 0V8", "M0 0L8 8M0 8L8 0")


def _patterns() -> Iterator[str]:
    for index, path in enumerate(HATCHES):
        yield _pattern(f"k{index}", 6, path)
    for index, path in enumerate(GREYS):
        yield _pattern(f"r{index}", 8, path)


def _pattern(name: str, size: int, path: str) -> str:
    lines = f'<path d="{path}"/>' if path else ""
    square = f"width={size} height={size}"
    return f"<pattern id=p{name} class={name} {square} patternUnits=userSpaceOnUse><rect {square} />{lines}</pattern>"
