"""What is told in words: warnings, cells that do not fit, what failed, what was not taken, how and where it was measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from modelgraft.commands import in_bytes, in_seconds
from modelgraft_plugins.benching.page.amounts import per_cent
from modelgraft_plugins.benching.page.naming import Names
from modelgraft_plugins.benching.page.thinning import Room, cut
from modelgraft_plugins.benching.results import Cell, Reason, Results


def section(id: str, head: str, body: str) -> str:
    """A section, when there is something in it."""
    return f"<section id={id}><h2>{escape(head)}</h2>{body}</section>\n" if body else ""


def warnings(results: Results, room: Room) -> str:
    """Everything that a reader must know before believing the figures."""
    found = dict.fromkeys(results.warnings, 0)
    for cell in results.cells:
        for text in (*cell.warnings, *([cell.ratio.warning] if cell.ratio and cell.ratio.warning else ())):
            found[text] = found.get(text, 0) + 1
    if not results.is_finished:
        found = {"This bench is not finished: the cells that it lacks are not here.": 0, **found}
    lines = (escape(cut(text, room.letters)) + (f" <small>({_cells(count)})</small>" if count else "") for text, count in found.items())
    return _list(lines, room)


def reasons(cells: Sequence[Cell], names: Names, room: Room) -> str:
    """Why cells do not fit or failed, grouped by reason, each with what its cells have in common."""
    groups: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in cells:
        for reason in cell.reasons or (Reason(code="unknown", text="no reason is recorded"),):
            groups.setdefault((reason.code, reason.text, reason.place), []).append(cell)
    ordered = sorted(groups.items(), key=lambda group: -len(group[1]))
    return _list((_group(reason, group, cells, names, room) for reason, group in ordered), room, kind="groups")


def _group(reason: tuple[str, str, str], group: Sequence[Cell], cells: Sequence[Cell], names: Names, room: Room) -> str:
    code, text, place = reason
    where = f" <small>{escape(cut(place, room.letters))}</small>" if place else ""
    common = _common(group, cells, names)
    listed = ", ".join(escape(names.of[cell.id]) for cell in group[: room.groups])
    more = f" and {len(group) - room.groups} more" if len(group) > room.groups else ""
    head = f"<b class=code>{escape(code)}</b> {escape(cut(text, room.letters))}{where}"
    return f"{head}<details><summary>{_cells(len(group))}{escape(common)}</summary>{listed}{more}</details>"


def _common(group: Sequence[Cell], cells: Sequence[Cell], names: Names) -> str:
    """The values that all cells of a group have, and not all others."""
    shared = []
    for axis in names.axes:
        values = {names.value(cell, axis) for cell in group}
        if len(values) == 1 and len({names.value(cell, axis) for cell in cells}) > 1:
            shared.append(f"{axis} {values.pop()}")
    return f" with {', '.join(shared)}" if shared else ""


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
        (
            f"<b>{escape(figure)}</b>: {escape(cut(why, room.letters))} <small>({_cells(count)})</small>"
            for (figure, why), count in found.items()
        ),
        room,
    )


def method(results: Results) -> list[tuple[str, str]]:
    """How it was measured."""
    how = results.method
    target = "" if how.precision_target is None else f"intervals within {per_cent(how.precision_target)}"
    return _said(
        ("command", " ".join(results.command)),
        ("records", f"{results.data.records} of {results.data.name}"),
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


def facts(rows: Iterable[tuple[str, str]], room: Room) -> str:
    """Names and what they are, as a list."""
    return "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(cut(text, room.letters))}</dd>" for name, text in rows) + "</dl>"


def _said(*rows: tuple[str, str]) -> list[tuple[str, str]]:
    return [row for row in rows if row[1]]


def _cells(count: int) -> str:
    return f"{count} cell{'s' * (count != 1)}"


def _list(lines: Iterable[str], room: Room, *, kind: str = "") -> str:
    listed = list(lines)
    more = [f"and {len(listed) - room.groups} more, which the JSON has"] if len(listed) > room.groups else []
    items = "".join(f"<li>{line}</li>" for line in (*listed[: room.groups], *more))
    return f"<ul{f' class={kind}' if kind else ''}>{items}</ul>" if listed else ""
