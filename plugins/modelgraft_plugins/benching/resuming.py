"""Going on with a bench that was stopped: what may be kept of its file, and what keeps it from being kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from modelgraft.commands import refuse_to_replace
from modelgraft.plugin import InputError
from modelgraft_plugins.benching.comparing import different_versions
from modelgraft_plugins.benching.files import read_results
from modelgraft_plugins.benching.results import Cell, Data, Method, Results

PAGE, ROOM = b"<!doctype html", 8  # how a page begins, and what may stand before that
OUTCOMES = frozenset({"stopped_by"})  # of a method: what came of it


def refuse_to_lose(out: Path) -> None:
    """Raise InputError where a file that is there would be lost: something else than results, or a bench that was stopped."""
    if not out.exists():
        return
    try:
        before = read_results(out)
    except InputError as error:
        raise InputError(f"output '{out}' would replace a file that holds no results of this release: {error}; name another") from error
    if not before.is_finished:
        measured = sum(cell.state == "measured" or bool(cell.samples) for cell in before.cells)
        raise InputError(
            f"output '{out}' holds a bench that was stopped, with {measured} cells: --resume goes on with it; "
            "to begin anew name another file, or delete it"
        )


def refuse_to_lose_for_page(html: Path, others: Mapping[Path, str]) -> None:
    """Raise InputError where a page would replace something else than a page, or take the place of another file of this bench."""
    refuse_to_replace(html, others)
    if not html.exists():
        return
    try:
        with html.open("rb") as file:
            begins = file.read(len(PAGE) + ROOM).lstrip().lower()
    except OSError as error:
        raise InputError(f"output '{html}' cannot be written: {error.strerror}") from error
    if begins and not begins.startswith(PAGE):
        raise InputError(f"output '{html}' would replace a file that is no page; name another, or delete it")


def kept_of(out: Path, *, method: Method, data: Data, versions: Mapping[str, str], cells: Sequence[Cell]) -> Results | None:
    """The bench that a file holds, to go on with; None where there is no file yet.

    cells  those of this bench, as far as they are known

    Raises InputError with everything that is another thing now.
    """
    if not out.exists():
        return None
    before = read_results(out)
    others = list(_others(before, method=method, data=data, versions=versions, cells=cells))
    if others:
        told = "".join(f"\n    {one}" for one in others)
        raise InputError(f"'{out}' is another bench, and cannot be gone on with:{told}\n    name another file, or leave --resume out")
    return before


def _others(before: Results, *, method: Method, data: Data, versions: Mapping[str, str], cells: Sequence[Cell]) -> Iterator[str]:
    for field in fields(Method):
        then, now = getattr(before.method, field.name), getattr(method, field.name)
        if field.name not in OUTCOMES and then != now:
            yield f"--{field.name.removesuffix('_s').replace('_', '-')} was {then}, and is {now}"
    if before.data.digest != data.digest:
        yield f"the data were {before.data.records} records of {before.data.name}, and are {data.records} others of {data.name}"
    yield from different_versions(before.surroundings.versions, versions)
    known = {cell.key: cell for cell in cells}
    lost = [cell for cell in before.cells if cell.state == "measured" and cell.key not in known]
    if lost:
        yield f"{len(lost)} measured cells are not in this sweep: {', '.join(cell.id for cell in lost[:8])}"
    changed = [cell for cell in before.cells if cell.key in known and cell.digest and cell.digest != known[cell.key].digest]
    if changed:
        yield f"weights, configs or plugins of {len(changed)} cells are others: {', '.join(cell.id for cell in changed[:8])}"
