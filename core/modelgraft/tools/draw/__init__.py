"""Drawings of a checked graph: Mermaid, DOT, SVG, PNG and a page to explore. All of them are made here, offline."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from modelgraft.tools.draw.folding import clusters, fold
from modelgraft.tools.draw.legends import draw_dot, draw_mermaid
from modelgraft.tools.draw.page import page
from modelgraft.tools.draw.picture import Picture, picture
from modelgraft.tools.draw.png import draw_png
from modelgraft.tools.draw.spent import Spent, lay_over, read_spent, spent_of
from modelgraft.tools.draw.vector import draw_svg

__all__ = ["FORMATS", "Picture", "Spent", "clusters", "draw_png", "draw_svg", "fold", "lay_over", "picture", "read_spent", "spent_of"]

# format of text -> what draws it
FORMATS: Mapping[str, Callable[[Picture], str]] = {"mermaid": draw_mermaid, "dot": draw_dot, "svg": draw_svg, "html": page}
