"""Colours, type and marks of the drawings. Opacity is an attribute of its own: colours of eight digits fail in print and in converters."""

from __future__ import annotations

from html import escape

from modelgraft.tools.draw.palette import Colours
from modelgraft.tools.draw.picture import FROZEN, TRAINED

NAME_PX, LINE_PX, PORT_PX = 13.0, 11.0, 10.0
PAPER = "#ffffff"

MARKS = {FROZEN: "frozen weights", TRAINED: "trained weights", "": "no weights"}
HEAT = "#d9480f"  # the bar that tells how much of a run a node took
HIT = "#0f766e"  # what came from the cache

STYLE = """
text { font-family: Inter, 'Segoe UI', Helvetica, Arial, 'DejaVu Sans', sans-serif; fill: #22272e; }
.name { font-size: 13px; font-weight: 600; } .line { font-size: 11px; fill: #4b5563; }
.bold { font-weight: 600; }
.port { font-size: 10px; fill: #6b7280; } .type { font-size: 10px; }
.time { font-size: 11px; font-weight: 600; fill: #9a3412; } .hit { fill: #0f766e; }
.box rect.frame { fill: #ffffff; stroke: #9aa3ad; stroke-width: 1.2; }
.frozen rect.frame { fill: #e8f2fb; stroke: #4a86b8; } .trained rect.frame { fill: #fdf0e1; stroke: #d08a3e; }
.idle rect.frame { stroke-dasharray: 5 4; }
.cluster rect.frame { fill: #64748b; stroke: #94a3b8; stroke-width: 1; }
.wire { fill: none; stroke-width: 1.6; } .route { stroke-dasharray: 6 4; }
.plate { fill: #ffffff; stroke-width: 0.7; }
""".strip()

# The colours of a page around drawings, as variables of CSS, on light and on dark.
PAGE = {
    "ink": ("#22272e", "#e6e9ee"),
    "soft": ("#5b6470", "#a7b0bc"),
    "faint": ("#7b8490", "#8791a0"),
    "line": ("#d8dde3", "#2e3540"),
    "edge": ("#b9c0c8", "#465060"),
    "page": ("#ffffff", "#161a20"),
    "stage": ("#f8fafc", "#12151a"),
    "chip": ("#eef1f4", "#252c36"),
    "bar": ("#c7d7ea", "#2f4a6b"),
    "link": ("#1f5f99", "#7db8ec"),
}

# The same on a dark page: rules of a page go over the attributes and rules of the drawing in it.
DARK = (
    "#stage text { fill: #e6e9ee; } #stage .line { fill: #b3bcc8; } #stage .port { fill: #98a2b0; }",
    "#stage .time { fill: #ffb38a; } #stage .hit { fill: #5ccabc; }",
    "#stage .box rect.frame { fill: #222832; stroke: #6b7686; }",
    "#stage .frozen rect.frame { fill: #17324a; stroke: #5b9fd4; } #stage .trained rect.frame { fill: #43301a; stroke: #d9974a; }",
    "#stage .cluster rect.frame { fill: #94a3b8; stroke: #64748b; } #stage .plate { fill: #161a20; }",
)


def dark_rules(colours: Colours) -> str:
    """The rules of a dark page for all families."""
    return "\n".join([*DARK, *(_dark_rule(family, dark) for family, (_, dark) in colours.items())])


def _dark_rule(family: str, dark: str) -> str:
    return (
        f"#stage .wire.f-{family} {{ stroke: {dark}; }} #stage .head.f-{family} {{ fill: {dark}; }} "
        f"#stage .type.f-{family} {{ fill: {dark}; }} #stage .plate.f-{family} {{ stroke: {dark}; }} "
        f"#stage .end.f-{family} rect.frame {{ stroke: {dark}; fill: {dark}; }}"
    )


def page_colours() -> str:
    """The rules that give a page its colours: `var(--ink)` and the others, light or dark as the reader's system is."""
    light, dark = (" ".join(f"--{name}: {pair[index]};" for name, pair in PAGE.items()) for index in (0, 1))
    return f":root {{ {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}"


def text_width(text: str, px: float) -> float:
    """Estimate how wide a text is in a common sans-serif face: exact metrics would need the font. Rather too wide than too narrow."""
    narrow, wide = "iIjl.,:;|![]()'ft ", "mwMW@%"
    ems = sum(0.36 if letter in narrow else 0.92 if letter in wide else 0.62 for letter in text)
    return ems * px


def text(kind: str, x: float, y: float, words: str, *, anchor: str = "middle", colour: str = "") -> str:
    """A line of text."""
    fill = f' fill="{colour}"' if colour else ""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{fill}>{escape(words)}</text>'


def mark(kind: str, x: float, y: float) -> str:
    """A snowflake or a flame, drawn: not every font has them."""
    if kind == FROZEN:
        arms = "".join(
            f'<path transform="rotate({angle})" d="M0 -6 V6 M-2 -4.6 L0 -3 L2 -4.6 M-2 4.6 L0 3 L2 4.6"/>' for angle in (0, 60, 120)
        )
        return f'<g transform="translate({x:.1f} {y:.1f})" fill="none" stroke="#3577ab" stroke-width="1.1">{arms}</g>'
    outer = "M0 -6.5 C1 -3.5 4.5 -2 4.5 1.8 A4.5 4.5 0 0 1 -4.5 1.8"
    flame = f"{outer} C-4.5 -0.4 -3 -1.4 -2.4 -3.2 C-1.6 -2.4 -1.2 -1.6 -1 -0.8 C0.2 -2.4 0.4 -4.6 0 -6.5 z"
    return f'<path transform="translate({x:.1f} {y:.1f})" d="{flame}" fill="#e07b1f"/>'
