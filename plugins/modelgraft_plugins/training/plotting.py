"""The losses of a stage as a drawing: an SVG of its own, without a library and without fonts that must be there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, floor, isfinite, log10
from pathlib import Path

from modelgraft.commands import file_aside

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 150, 36, 44
COLOURS = ("#2563eb", "#d97706", "#059669", "#db2777", "#7c3aed", "#475569")  # told apart by those who do not see red or green as well
LONGEST = 18  # letters of a name that there is room for
MOST_POINTS = 600  # of a line: more than one for each pixel shows nothing

Points = Sequence[tuple[float, float]]


def draw(folder: Path, rows: Sequence[Mapping[str, str]], *, losses: Sequence[str], judged: Sequence[str], title: str) -> None:
    """Draw the rows of a table: its losses, and in a drawing of their own the other figures of its evaluations, where there are any."""
    lines: dict[str, list[tuple[float, float]]] = {}
    others: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        point = float(row["step"])
        for name in losses:
            if row.get(name):
                lines.setdefault(name if row["part"] == "train" else f"{name}, valid", []).append((point, float(row[name])))
        for name in judged if row["part"] == "valid" else ():
            if row.get(name):
                others.setdefault(name, []).append((point, float(row[name])))
    plot(folder / "loss.svg", lines, title=title)
    (folder / "evaluations.svg").unlink(missing_ok=True)  # of a run that watched something else
    plot(folder / "evaluations.svg", others, title=f"{title}, evaluations")


def plot(path: Path, lines: Mapping[str, Points], *, title: str) -> None:
    """Write the lines, step against value; nothing when there is no point. What is no number is left out."""
    there = {name: [point for point in points if isfinite(point[1])] for name, points in lines.items()}
    drawn = {name: _thinned(points) for name, points in there.items() if points}
    if not drawn:
        return
    every = [point for points in drawn.values() for point in points]
    ticks = _ticks(min(y for _, y in every), max(y for _, y in every))
    last = max(1.0, *(x for x, _ in every))
    low, high = ticks[0], ticks[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (WIDTH - LEFT - RIGHT) * x / last
        return round(across, 1), round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y - low) / (high - low), 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="22" font-size="14" fill="#0f172a">{escape(title)}</text>',
    ]
    for tick in ticks:
        _, y = place(0, tick)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}" stroke="#e2e8f0"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end" fill="#475569">{tick:.4g}</text>')
    for share in (0.0, 0.5, 1.0):
        x, _ = place(last * share, low)
        parts.append(f'<text x="{x}" y="{HEIGHT - 22}" text-anchor="middle" fill="#475569">{round(last * share):,}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle" fill="#475569">step</text>')
    for index, (name, points) in enumerate(drawn.items()):
        colour = COLOURS[index % len(COLOURS)]
        ways = " ".join(f"{x},{y}" for x, y in (place(*point) for point in points))
        parts.append(f'<polyline points="{ways}" fill="none" stroke="{colour}" stroke-width="1.6" stroke-linejoin="round"/>')
        if len(points) <= 40:
            parts.extend(f'<circle cx="{x}" cy="{y}" r="2.2" fill="{colour}"/>' for x, y in (place(*point) for point in points))
        y = TOP + 8 + 20 * index
        parts.append(f'<line x1="{WIDTH - RIGHT + 12}" x2="{WIDTH - RIGHT + 32}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="2.4"/>')
        parts.append(f'<text x="{WIDTH - RIGHT + 38}" y="{y + 4}" fill="#0f172a">{escape(_short(name))}</text>')
    with file_aside(path) as aside:
        aside.write_text("\n".join([*parts, "</svg>", ""]), encoding="utf-8")


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def _thinned(points: Points) -> Points:
    """Means of neighbours, where there are more points than can be seen."""
    size = ceil(len(points) / MOST_POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers that hold all values between them."""
    span = (high - low) or abs(high) or 1.0
    rough = span / 4
    unit: float = 10 ** floor(log10(rough))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough * 0.999)
    first = floor(low / step)
    return [step * number for number in range(first, max(first + 1, ceil(high / step)) + 1)]
