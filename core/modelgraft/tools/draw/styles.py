"""Colours, type and marks of the drawings. Opacity is an attribute of its own: colours of eight digits fail in print and in converters."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from modelgraft.tools.draw.picture import FROZEN, TRAINED

NAME_PX, LINE_PX, PORT_PX = 13.0, 11.0, 10.0
PAPER = "#ffffff"

# One colour per family of values: media in strong colours, numbers in greys. On paper, and on a dark page.
FAMILIES: Mapping[str, tuple[str, str]] = {
    "image": ("#2563eb", "#7aa7ff"),
    "video": ("#7c3aed", "#b794ff"),
    "depth": ("#0e7490", "#4fc3dc"),
    "thermal": ("#be123c", "#ff7d9b"),
    "imu": ("#65a30d", "#a9d65a"),
    "audio": ("#d97706", "#f5b04f"),
    "text": ("#15803d", "#5cc98a"),
    "conversation": ("#0f766e", "#52c7bb"),
    "label": ("#a21caf", "#e07de8"),
    "boxes": ("#b45309", "#e8a05c"),
    "tokens": ("#8a6d3b", "#cfb27e"),
    "tensor": ("#5b6470", "#a7b0bc"),
    "mask": ("#9f5f4b", "#d99b87"),
    "object": ("#44403c", "#bdb6b0"),
}
COLOURS: Mapping[str, str] = {family: colour for family, (colour, _) in FAMILIES.items()}
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

# The same on a dark page: rules of a page go over the attributes and rules of the drawing in it.
DARK = "\n".join(
    [
        "#stage text { fill: #e6e9ee; } #stage .line { fill: #b3bcc8; } #stage .port { fill: #98a2b0; }",
        "#stage .time { fill: #ffb38a; } #stage .hit { fill: #5ccabc; }",
        "#stage .box rect.frame { fill: #222832; stroke: #6b7686; }",
        "#stage .frozen rect.frame { fill: #17324a; stroke: #5b9fd4; } #stage .trained rect.frame { fill: #43301a; stroke: #d9974a; }",
        "#stage .cluster rect.frame { fill: #94a3b8; stroke: #64748b; } #stage .plate { fill: #161a20; }",
        *(
            f"#stage .wire.f-{family} {{ stroke: {dark}; }} #stage .head.f-{family} {{ fill: {dark}; }} "
            f"#stage .type.f-{family} {{ fill: {dark}; }} #stage .plate.f-{family} {{ stroke: {dark}; }} "
            f"#stage .end.f-{family} rect.frame {{ stroke: {dark}; fill: {dark}; }}"
            for family, (_, dark) in FAMILIES.items()
        ),
    ]
)


def known(family: str) -> str:
    """The family, or that of anything when it has no colour of its own."""
    return family if family in FAMILIES else "object"


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
