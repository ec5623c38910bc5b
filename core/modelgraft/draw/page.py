"""A drawing as one HTML page: zoom, search, and everything about a node on a click. Nothing is fetched from anywhere.

The page itself is `page.html` beside this file; `{{name}}` marks what is put in.
"""

from __future__ import annotations

import json
import re
from html import escape
from pathlib import Path

from modelgraft.draw.picture import Picture, picture
from modelgraft.draw.vector import draw_svg
from modelgraft.graph import SolvedGraph
from modelgraft.plans import Plan


def html(subject: SolvedGraph | Plan) -> str:
    """Draw as a self-contained page."""
    drawn = picture(subject)
    parts = {
        "title": escape(drawn.name or "graph"),
        "doc": escape(drawn.doc),
        "count": _count(drawn),
        "svg": draw_svg(drawn),
        "facts": _facts(drawn),
    }
    page = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], page)


def _facts(drawn: Picture) -> str:
    facts = {box.id: {"name": box.name, "mark": box.mark, "role": box.role, "facts": box.facts} for box in drawn.boxes}
    # "</script>" in a value would end the script that holds it, so "<" is written as an escape.
    return json.dumps(facts, ensure_ascii=False).replace("<", "\\u003c")


def _count(drawn: Picture) -> str:
    nodes = sum(box.role == "node" for box in drawn.boxes)
    return f"{nodes} node{'s' * (nodes != 1)}, {len(drawn.arrows)} wire{'s' * (len(drawn.arrows) != 1)}"
