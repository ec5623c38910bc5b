"""The page as a whole: one file, nothing fetched from anywhere, and never larger than `LARGEST`.

`page.html` beside this file is its frame: `{{name}}` marks what is put in. `page.css` is its look, `page.js` what a script adds; without
a script everything can be read, every point leads to its row, and one click on a command selects it whole.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path, PurePath

from modelgraft.commands import in_seconds, page_colours, write_value
from modelgraft_plugins.benching.page import accounts, charts, marks, strips, tables
from modelgraft_plugins.benching.page.amounts import interval, latency, plain_number, times
from modelgraft_plugins.benching.page.naming import Names, names_of
from modelgraft_plugins.benching.page.thinning import Room, cut, rooms
from modelgraft_plugins.benching.results import Cell, Results

LARGEST = 150_000  # bytes of a page
HERE = Path(__file__).parent


def write_page(results: Results, file: Path) -> None:
    """Write the page; it appears whole or not at all.

    Raises InputError when it cannot be put there: `modelgraft.commands.check_writable` tells so before anything is measured.
    """
    write_value(page_of(results), file)


def page_of(results: Results) -> str:
    """The page as text, thinned out as far as it must be, and saying so."""
    names = names_of(results)
    text = ""
    for room in rooms():
        text = _page(results, names, room)
        if len(text.encode()) <= LARGEST:
            break
    return text


def _page(results: Results, names: Names, room: Room) -> str:
    rows = {cell.id: number for number, cell in enumerate(results.cells, start=1)}
    run = [cell for cell in results.cells if cell.state != "pruned"]
    listed = _listed(run, results, room)
    measured = [cell for cell in listed if cell.state == "measured"]
    shown = charts.Shown(results=results, cells=measured, rows=rows, names=names, marks=marks.marks_of(measured, names), room=room)
    sections = {
        "charts": marks.legend(shown.marks) + charts.scatters(shown) if measured else "",
        "ratios": charts.ratios(shown),
        "nodes": charts.bars(shown),
        "table": tables.table(listed, rows, names, shown.marks, room) + _untaken(listed, room) if listed else "",
        "pruned": accounts.reasons([cell for cell in results.cells if cell.state == "pruned"], names, room),
        "failed": accounts.reasons([cell for cell in results.cells if cell.state == "failed"], names, room),
        "records": accounts.failures(results, names, room),
        "method": accounts.facts(accounts.method(results), room),
        "surroundings": accounts.facts(accounts.surroundings(results), room),
    }
    return _framed(results, names, sections, room, notes=_notes(len(run), len(listed), room))


HEADS = {
    "charts": "Cells",
    "ratios": "Over the baseline",
    "nodes": "Where the time goes",
    "table": "All figures",
    "pruned": "Cells that do not fit",
    "failed": "Cells that failed",
    "records": "Records that failed",
    "method": "Method",
    "surroundings": "Surroundings",
}


def _framed(results: Results, names: Names, sections: dict[str, str], room: Room, *, notes: Sequence[str]) -> str:
    graphs = ", ".join(dict.fromkeys(PurePath(cell.graph).stem for cell in results.cells)) or "nothing"
    filled = {id: body for id, body in sections.items() if body}
    remarks = accounts.warnings(results, room)
    parts = {
        "title": escape(cut(f"bench of {graphs}", room.letters)),
        "facts": escape(f"{results.surroundings.date} · {cut(accounts.counted(results), room.letters)} · {_counts(results)}"),
        "found": "".join(f"<p class=found>{escape(text)}</p>" for text in _findings(results, names)),
        "notes": "".join(f"<p class=note>{escape(text)}</p>" for text in notes),
        "warnings": f"<aside id=warnings><h2>Warnings</h2>{remarks}</aside>" if remarks else "",
        "nav": "".join(f"<a href=#{id}>{HEADS[id]}</a>" for id in filled),
        "sections": "".join(accounts.section(id, HEADS[id], body) for id, body in filled.items()),
        "colours": page_colours(),
        "light": marks.hues(dark=False),
        "dark": marks.hues(dark=True),
        "defs": marks.definitions()
        + f"<svg width=0 height=0 style=position:absolute aria-hidden=true><defs>{strips.patterns()}</defs></svg>",
        "css": (HERE / "page.css").read_text(encoding="utf-8"),
        "js": (HERE / "page.js").read_text(encoding="utf-8"),
    }
    frame = (HERE / "page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], frame)


def _listed(run: Sequence[Cell], results: Results, room: Room) -> list[Cell]:
    """The cells that have room: the baseline, those on a front, then the fastest; in the order of the file."""
    if len(run) <= room.rows:
        return list(run)
    best = charts.on_a_front(run)
    order = sorted(
        range(len(run)),
        key=lambda index: (run[index].id != results.baseline, run[index].id not in best, latency(run[index]) or float("inf"), index),
    )
    return [run[index] for index in sorted(order[: room.rows])]


def _notes(run: int, listed: int, room: Room) -> list[str]:
    if room.is_full:
        return []
    left = f" {listed} of {run} cells are on it: the baseline, those on a front, then the fastest." if listed < run else ""
    return [f"This page is kept under {LARGEST // 1000} kB: parts of it are thinned out, and the JSON of the bench has everything.{left}"]


def _counts(results: Results) -> str:
    states = [cell.state for cell in results.cells]
    words = {"measured": "measured", "pruned": "do not fit", "failed": "failed", "unfinished": "unfinished"}
    return ", ".join(f"{states.count(state)} {text}" for state, text in words.items() if state in states) or "no cells"


def _findings(results: Results, names: Names) -> list[str]:
    """The first things that one wants to know: the fastest, and the best of every metric, beside the baseline."""
    measured = [cell for cell in results.cells if cell.state == "measured"]
    timed = sorted((time, index) for index, cell in enumerate(measured) if (time := latency(cell)))
    base = next((cell for cell in measured if cell.id == results.baseline), None)
    found = [f"Baseline: {names.of[base.id]}{_at(base)}."] if base else []
    if len(timed) > 1:
        fastest = measured[timed[0][1]]
        found.append(f"Fastest: {names.of[fastest.id]}{_at(fastest)}{_over(fastest)}.")
        found += [text for key in charts.metrics(measured) if (text := _best(measured, key, names))]
    return found


def _at(cell: Cell) -> str:
    time = latency(cell)
    return f", {in_seconds(time)} a call" if time else ""


def _over(cell: Cell) -> str:
    if cell.ratio is None or cell.ratio.verdict == "baseline":
        return ""
    return f", {times(cell.ratio.wall.value)} {interval(cell.ratio.wall)} of the baseline: {cell.ratio.verdict}"


def _best(cells: Sequence[Cell], key: tuple[str, str], names: Names) -> str:
    having = [(cell, one) for cell in cells if (one := tables.quality_of(cell, *key))]
    pick = max if having and having[0][1].better == "higher" else min
    cell, one = pick(having, key=lambda pair: pair[1].value)
    return f"Best {key[0]}: {names.of[cell.id]}, {plain_number(one.value)} {interval(one)}".strip() + f"{_at(cell)}."


def _untaken(cells: Sequence[Cell], room: Room) -> str:
    body = accounts.untaken(cells, room)
    return f"<details><summary>Figures that were not taken, and why</summary>{body}</details>" if body else ""
