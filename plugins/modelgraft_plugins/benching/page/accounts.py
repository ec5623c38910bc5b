"""What is told in words: warnings, cells that do not fit, what failed, what was not taken, how and where it was measured."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

from modelgraft.commands import in_bytes, in_seconds
from modelgraft_plugins.benching.page.amounts import per_cent
from modelgraft_plugins.benching.page.naming import Names
from modelgraft_plugins.benching.page.thinning import Room, cut
from modelgraft_plugins.benching.pruned import among, grouped, in_cells
from modelgraft_plugins.benching.results import Cell, Reason, Results


def section(id: str, head: str, body: str) -> str:
    """A section, when there is something in it."""
    return f"<section id={id}><h2>{escape(head)}</h2>{body}</section>\n" if body else ""


def warnings(results: Results, room: Room) -> str:
    """Everything that a reader must know before believing the figures; what differs in numbers alone is told once."""
    found: dict[str, tuple[str, set[str], int]] = {}  # by the sentence without its numbers: the first, all, and in how many cells
    told = [("", text) for text in results.warnings]
    told += [(cell.id, text) for cell in results.cells for text in (*cell.warnings, cell.ratio.warning if cell.ratio else "") if text]
    if not results.is_finished:
        told.insert(0, ("", "This bench is not finished: the figures that it lacks are not here."))
    for cell, text in told:
        first, texts, count = found.get(sentence := re.sub(r"\d[\d,.]*", "0", text), (text, set(), 0))
        found[sentence] = (first, texts | {text}, count + bool(cell))
    lines = (
        escape(cut(first, room.letters)) + _small(_alike(len(texts)), in_cells(count) if count else "")
        for first, texts, count in found.values()
    )
    return _list(lines, room)


def _small(*parts: str) -> str:
    words = ", ".join(filter(None, parts))
    return f" <small>({words})</small>" if words else ""


def _alike(texts: int) -> str:
    return f"{texts - 1} more alike, with other numbers" if texts > 1 else ""


def reasons(cells: Sequence[Cell], names: Names, room: Room) -> str:
    """Why cells do not fit or failed, grouped as on the terminal, each with what its cells have in common."""
    return _list((_group(one, count, group, cells, names, room) for one, count, group in grouped(cells)), room, kind="groups")


def _group(reason: Reason, texts: int, group: Sequence[Cell], cells: Sequence[Cell], names: Names, room: Room) -> str:
    first, *hints = (escape(cut(line, room.letters)) for line in reason.text.splitlines())
    alike = _small(f"{texts - 1} more alike, of other sizes or origins" if texts > 1 else "")
    head = f"<b class=code>{escape(reason.code)}</b> {first}{alike}{_small(escape(cut(reason.place, room.letters)))}"
    listed = ", ".join(escape(names.of[cell.id]) for cell in group[: room.groups])
    more = f" and {len(group) - room.groups} more" if len(group) > room.groups else ""
    common = f": {among(group, cells)}" if len(cells) > 1 else ""
    lines = "".join(f"<br><span class=hint>{line}</span>" for line in hints)
    return f"{head}{lines}<details><summary>{in_cells(len(group))}{escape(cut(common, room.letters))}</summary>{listed}{more}</details>"


def failures(results: Results, names: Names, room: Room) -> str:
    """Records that failed: they are counted, and in no figure."""
    lines = [("every cell", one) for one in results.data.failed] + [
        (names.of[cell.id], one) for cell in results.cells for one in cell.failures
    ]
    return _list(
        (
            f"<b>record {one.record}</b> of {escape(who)}{f' at {escape(cut(one.place, room.letters))}' if one.place else ''}: "
            f"{escape(cut(one.text, room.letters))}"
            for who, one in lines
        ),
        room,
    )


def untaken(cells: Sequence[Cell], room: Room) -> str:
    """Which figures were not taken, and why."""
    found: dict[tuple[str, str], int] = {}
    for cell in cells:
        for figure, why in cell.untaken.items():
            found[figure, why] = found.get((figure, why), 0) + 1
    return _list(
        (f"<b>{escape(figure)}</b>: {escape(cut(why, room.letters))} {_small(in_cells(count))}" for (figure, why), count in found.items()),
        room,
    )


def method(results: Results) -> list[tuple[str, str]]:
    """How it was measured."""
    how = results.method
    target = "" if how.precision_target is None else f"intervals within {per_cent(how.precision_target)}"
    return _said(
        ("command", " ".join(results.command)),
        ("records", counted(results)),
        ("digest of the records", results.data.digest or ""),
        ("rounds", f"{how.rounds}, each with every cell, in an order shuffled by seed {how.seed}"),
        ("warm-up", f"{how.warm_ups} calls of each cell before the first round"),
        ("fresh processes a cell", f"{how.cold}" if how.cold else "none: no cold and warm starts"),
        ("wanted", target),
        ("budget", "" if how.budget_s is None else in_seconds(how.budget_s)),
        ("stopped by", how.stopped_by),
        ("shared", "nodes that no swept value changes were computed once, before" if how.share_upstream else ""),
    )


def surroundings(results: Results) -> list[tuple[str, str]]:
    """Where it was measured."""
    here = results.surroundings
    loads = [f"{when} {load:.2f}" for when, load in (("before", here.load_before), ("during", here.load_during)) if load is not None]
    return _said(
        ("date", here.date),
        ("processor", f"{here.processor}, {here.cores} cores, {in_bytes(here.memory)}"),
        ("features", ", ".join(here.features)),
        ("devices", ", ".join(here.devices)),
        ("system", here.system),
        ("load", ", ".join(loads)),
        ("pressure", "" if here.pressure is None else f"{here.pressure:.3g} % of the time, some waited for the processor"),
        ("versions", ", ".join(f"{name} {version}" for name, version in here.versions.items())),
        ("variables", ", ".join(f"{name}={value}" for name, value in here.variables.items())),
    )


def counted(results: Results) -> str:
    """How many records there were, and of what."""
    number = results.data.records
    return f"{number} record{'s' * (number != 1)} of {results.data.name}"


def facts(rows: Iterable[tuple[str, str]], room: Room) -> str:
    """Names and what they are, as a list."""
    return "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(cut(text, room.letters))}</dd>" for name, text in rows) + "</dl>"


def _said(*rows: tuple[str, str]) -> list[tuple[str, str]]:
    return [row for row in rows if row[1]]


def _list(lines: Iterable[str], room: Room, *, kind: str = "") -> str:
    listed = list(lines)
    more = [f"and {len(listed) - room.groups} more, which the JSON has"] if len(listed) > room.groups else []
    items = "".join(f"<li>{line}</li>" for line in (*listed[: room.groups], *more))
    return f"<ul{f' class={kind}' if kind else ''}>{items}</ul>" if listed else ""
