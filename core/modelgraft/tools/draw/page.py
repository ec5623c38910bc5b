"""A drawing as one HTML page: zoom, search, folding, and everything about a node on a click. Nothing is fetched from anywhere.

The page itself is `page.html` beside this file; `{{name}}` marks what is put in.
"""

from __future__ import annotations

import json
import re
from html import escape
from pathlib import Path
from typing import Any

from modelgraft.records.amounts import short_count
from modelgraft.tools.draw.folding import clusters, states
from modelgraft.tools.draw.picture import Box, Picture
from modelgraft.tools.draw.styles import dark_rules, page_colours
from modelgraft.tools.draw.vector import draw_svg

MANY = 30  # boxes; with more, a page begins with its inner graphs folded


def page(drawn: Picture) -> str:
    """Draw as a self-contained page."""
    every = states(drawn)
    first = tuple(sorted(clusters(drawn))) if len(drawn.boxes) > MANY else ()
    drawings = {folded: draw_svg(one) for folded, one in every.items()}
    parts = {
        "title": escape(drawn.name or "graph"),
        "doc": escape(drawn.doc),
        "count": _count(drawn),
        "colours": page_colours(),
        "dark": dark_rules(drawn.colours),
        "svg": drawings[first],
        "facts": _as_script({box.id: _facts(box) for one in every.values() for box in one.boxes}),
        "whole": _as_script(_whole(drawn)),
        "states": _as_script({"first": first, "drawings": [{"folded": key, "svg": text} for key, text in drawings.items()]}),
    }
    text = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], text)


def _facts(box: Box) -> dict[str, Any]:
    return {
        "name": box.id.partition(".")[2] if box.role in ("input", "output") else box.id,
        "mark": box.mark,
        "role": box.role,
        "facts": box.facts,
    }


def _whole(drawn: Picture) -> dict[str, Any]:
    """What the page tells before a box is chosen: the graph's own text, its totals, and its nodes by what they cost."""
    nodes = [box for box in drawn.boxes if box.role == "node"]
    is_timed = any(box.time for box in nodes)
    most = max((box.parameters or 0 for box in nodes), default=0)
    rows = [
        (box.id, box.time, box.share) if is_timed else (box.id, _parameters(box), (box.parameters or 0) / most if most else 0.0)
        for box in nodes
    ]
    rows = sorted((row for row in rows if row[1]), key=lambda row: -row[2])
    return {"totals": drawn.totals, "run": drawn.run, "by": "time" if is_timed else "parameters", "nodes": rows}


def _parameters(box: Box) -> str:
    return "not known without building" if box.parameters is None else short_count(box.parameters) if box.parameters else ""


def _as_script(value: Any) -> str:
    # "</script>" in a value would end the script that holds it, so "<" is written as an escape.
    return json.dumps(value, ensure_ascii=False).replace("<", "\\u003c")


def _count(drawn: Picture) -> str:
    nodes = sum(box.role == "node" for box in drawn.boxes)
    inner = len(clusters(drawn))
    graphs = f", {inner} inner graph{'s' * (inner != 1)}" if inner else ""
    return f"{nodes} node{'s' * (nodes != 1)}, {len(drawn.arrows)} wire{'s' * (len(drawn.arrows) != 1)}{graphs}"
