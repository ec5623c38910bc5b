"""Figures as the page writes them."""

from __future__ import annotations

import math

from modelgraft_plugins.benching.results import Cell, Quality, Spread, Value

NONE = "–"  # a figure that was not taken


def plain_number(value: float) -> str:
    """Three digits that matter: 0.433, 12.4, 1,240."""
    if not math.isfinite(value):
        return str(value)
    if value == 0 or 1e-3 <= abs(value) < 1e3:
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) < 1e6 and abs(value) >= 1e3 else f"{value:.2e}"


def times(value: float) -> str:
    """A ratio: 0.52×, 1.05×, 12.4×."""
    return f"{value:.{max(0, 3 - len(str(int(value))))}f}×" if value < 100 else f"{value:,.0f}×"


def per_cent(value: float) -> str:
    """A part of a whole."""
    return f"{100 * value:.3g} %"


def value_text(value: Value) -> str:
    """A value of an axis. None is what the graph, or modelgraft, takes by itself."""
    return "default" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def interval(spread: Spread | Quality, *, times_over: bool = False) -> str:
    """[low, high] of a figure; "" where it has none."""
    if spread.low is None or spread.high is None:
        return ""
    say = times if times_over else plain_number
    return f"[{say(spread.low)}, {say(spread.high)}]"


def latency(cell: Cell) -> float | None:
    """Seconds of a call: the median where there is one."""
    found = cell.p.get("50", cell.wall_s.value if cell.wall_s else None)
    return found if found is not None and math.isfinite(found) and found > 0 else None
