"""Drawings of a checked graph: Mermaid, DOT, SVG and a page to explore. All of them are made here, offline."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from modelgraft.draw.page import html
from modelgraft.draw.vector import svg
from modelgraft.draw.words import dot, mermaid
from modelgraft.graph import SolvedGraph
from modelgraft.plans import Plan

__all__ = ["FORMATS", "dot", "html", "mermaid", "svg"]

# format -> what draws it
FORMATS: Mapping[str, Callable[[SolvedGraph | Plan], str]] = {"mermaid": mermaid, "dot": dot, "svg": svg, "html": html}
