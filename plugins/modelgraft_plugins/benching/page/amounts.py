"""Figures as the page writes them."""

from __future__ import annotations

import math

from modelgraft_plugins.benching.results import Cell, Quality, Spread, Value

NONE = "–"  # a figure that was not taken


def plain_number(value: float) -> str:
    """Three digits that matter: 0.433, 0.0021, 12.4, 1,240."""
    size = abs(value)
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if 0.1 <= size < 1e6:
        return f"{value:,.{3 if size < 1 else max(0, 3 - len(str(int(size))))}f}"
    return f"{value:.3g}" if 1e-3 <= size < 1 else f"{value:.2e}"


def times(value: float) -> str:
    """A ratio: 0.520×, 1.05×, 12.4×."""
    return f"{plain_number(value)}×"


def per_cent(value: float) -> str:
    """A part of a whole."""
    return f"{100 * value:.3g} %"


def value_text(value: Value) -> str:
    """A value of an axis. None is what the graph, or modelgraft, takes by itself."""
    return "default" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def interval(spread: Spread | Quality) -> str:
    """[low, high] of a figure; "" where it has none."""
    return "" if spread.low is None or spread.high is None else f"[{plain_number(spread.low)}, {plain_number(spread.high)}]"


def latency(cell: Cell) -> float | None:
    """Seconds of a call: the median where there is one."""
    found = cell.p.get("50", cell.wall_s.value if cell.wall_s else None)
    return found if found is not None and math.isfinite(found) and found > 0 else None
