"""Drawings as text for other tools: Mermaid (renders in Markdown) and DOT (Graphviz)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from modelgraft.tools.draw.folding import clusters, home_of
from modelgraft.tools.draw.picture import FROZEN, TRAINED, Arrow, Box, Picture

SIGNS = {FROZEN: "❄ ", TRAINED: "✎ ", "": ""}
_SHAPES = {"input": ("([", "])"), "node": ("[", "]"), "graph": ("[[", "]]"), "output": ("([", "])")}
_STYLES = {
    FROZEN: "fill:#e6f1fb,stroke:#4a86b8,color:#16324a",
    TRAINED: "fill:#fdeedd,stroke:#c9792b,color:#4a2c0d",
    "code": "fill:#ffffff,stroke:#8a929c,color:#22272e",
    "edge": "fill:#f3f4f6,stroke:#8a929c,color:#22272e",
}


def draw_mermaid(drawn: Picture) -> str:
    """Draw as a Mermaid flowchart: it renders in Markdown on most hosts of code. Inner graphs are subgraphs of it."""
    names = {box.id: f"n{index}" for index, box in enumerate(drawn.boxes)}
    lines = ["flowchart TB"]
    lines += _grouped(
        drawn,
        lambda box: f"{names[box.id]}{_mermaid_box(box)}:::{_style(box)}",
        lambda number, title: f'subgraph g{number}["{_entities(title)}"]',
        "end",
    )
    lines += [f"  {names[arrow.giver]} {_mermaid_arrow(arrow)} {names[arrow.taker]}" for arrow in drawn.arrows]
    lines += [f"  classDef {name} {style}" for name, style in _STYLES.items()]
    return "\n".join(lines) + "\n"


def _grouped(drawn: Picture, line: Callable[[Box], str], head: Callable[[int, str], str], tail: str) -> Iterator[str]:
    """The boxes, those of inner graphs between a head and a tail."""
    every = clusters(drawn)

    def inside(id: str, indent: str) -> Iterator[str]:
        yield from (f"{indent}{line(box)}" for box in drawn.boxes if home_of(box) == id)
        for number, inner in enumerate(every):
            if inner.rpartition("/")[0] == id:
                yield f"{indent}{head(number, inner.rpartition('/')[2])}"
                yield from inside(inner, f"{indent}  ")
                yield f"{indent}{tail}"

    return inside("", "  ")


def _style(box: Box) -> str:
    return "edge" if box.role in ("input", "output") else box.mark or "code"


def _mermaid_box(box: Box) -> str:
    left, right = _SHAPES[box.role]
    words = "<br/>".join(_entities(line) for line in (SIGNS[box.mark] + box.name, *_lines(box)))
    return f'{left}"{words}"{right}'


def _lines(box: Box) -> tuple[str, ...]:
    return (*box.lines, box.time) if box.time else box.lines


def _mermaid_arrow(arrow: Arrow) -> str:
    line = "-.->" if arrow.is_route else "-->"
    words = _label(arrow)
    return f'{line}|"{_entities(words)}"|' if words else line


def _entities(text: str) -> str:
    """Mermaid reads #code; inside quotes; letters that mean something to it or to HTML are written so."""
    return "".join(f"#{ord(letter)};" if letter in '"#<>&`|\\{}' else letter for letter in text.replace("\n", " "))


def _label(arrow: Arrow) -> str:
    ports = " → ".join(name for name in (arrow.out, arrow.into) if name)
    return " ".join(part for part in (ports, arrow.label) if part)


def draw_dot(drawn: Picture) -> str:
    """Draw in the language of Graphviz: `modelgraft show GRAPH --format dot | dot -Tpdf`. Inner graphs are clusters."""
    lines = [
        f"digraph {_quoted(drawn.name or 'graph')} {{",
        '  graph [rankdir=TB, fontname="Helvetica"];',
        '  node [fontname="Helvetica", fontsize=11, style="filled,rounded", shape=box];',
        '  edge [fontname="Helvetica", fontsize=9, color="#5b6470"];',
        *_grouped(
            drawn,
            lambda box: f"{_quoted(box.id)} [{', '.join(_dot_box(box))}];",
            lambda number, title: (
                f'subgraph cluster_{number} {{ label={_quoted(title)}; labeljust=l; style="rounded"; color="#94a3b8"; fontsize=11;'
            ),
            "}",
        ),
        *(f"  {_quoted(arrow.giver)} -> {_quoted(arrow.taker)} [{', '.join(_dot_arrow(arrow))}];" for arrow in drawn.arrows),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _dot_box(box: Box) -> Iterator[str]:
    fill, stroke, _ = (part.partition(":")[2] for part in _STYLES[_style(box)].split(","))
    yield f"label={_quoted(chr(10).join((SIGNS[box.mark] + box.name, *_lines(box))))}"
    yield f'fillcolor="{fill}", color="{stroke}"'
    if box.role in ("input", "output"):
        yield "shape=oval"
    if box.role == "graph":
        yield "peripheries=2"
    if box.idle:
        yield 'style="dashed,rounded"'


def _dot_arrow(arrow: Arrow) -> Iterator[str]:
    yield f"label={_quoted(_label(arrow))}"
    if arrow.is_route:
        yield "style=dashed"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
