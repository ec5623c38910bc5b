"""The table of a bench on the terminal, and the reasons why cells are not in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from modelgraft.commands import in_bytes, in_seconds, short_count
from modelgraft_plugins.benching.results import Cell, Reason, Results

if TYPE_CHECKING:
    from modelgraft.commands import Screen
    from modelgraft_plugins.benching.checking import Checked

MOST_LIKE = 3  # texts that differ in their numbers alone and are shown before they are only counted


def say_checked(screen: Screen, checked: Checked) -> None:
    """Answer with the cells that fit, and why the others do not."""
    cells = [cell.planned for cell in checked.fitting]
    names = list(cells[0].values)
    rows = [
        (
            cell.id,
            *(str(cell.values[name]) for name in names),
            "?" if cell.parameters is None else short_count(cell.parameters),
            in_bytes(cell.memory.planned),
        )
        for cell in cells
    ]
    screen.table(("cell", *names, "parameters", "bytes"), rows, right=frozenset({len(names) + 1, len(names) + 2}))
    say_pruned(screen, checked.pruned, of=len(cells) + len(checked.pruned))


def say_results(screen: Screen, results: Results) -> None:
    """Answer with the figures of every cell that was measured, and why the others are not there."""
    cells = [cell for cell in results.cells if cell.state != "pruned"]
    names = list(results.axes)
    rows = [
        (
            cell.id,
            *(str(cell.values.get(name)) for name in names),
            cell.state,
            "-" if cell.wall_s is None else in_seconds(cell.wall_s.value),
        )
        for cell in cells
    ]
    screen.table(("cell", *names, "state", "wall"), rows, right=frozenset({len(names) + 2}))
    say_pruned(screen, [cell for cell in results.cells if cell.state == "pruned"], of=len(results.cells))


def say_pruned(screen: Screen, pruned: Sequence[Cell], *, of: int) -> None:
    """Tell which cells do not fit, equal reasons once."""
    if not pruned:
        return
    screen.say(f"{len(pruned)} of {of} cells do not fit together:")
    for (reason, like), cells in grouped(pruned).items():
        place = f"{reason.place}  " if reason.place else ""
        first, *hints = reason.text.splitlines()
        more = f" (and {like - 1} that differ in numbers alone)" if like > 1 else ""
        screen.say(f"  {len(cells)} cells  {place}{reason.code}  {first}{more}")
        for hint in hints:
            screen.say(f"      {hint}")
        screen.say(f"      {shared_values(cells)}")


def grouped(pruned: Sequence[Cell]) -> dict[tuple[Reason, int], list[Cell]]:
    """The cells by their reasons: those that differ in numbers alone are one, told by the first, with how many texts they are."""
    groups: dict[tuple[str, str, str], tuple[Reason, set[str], list[Cell]]] = {}
    for cell in pruned:
        for reason in cell.reasons:
            alike = (reason.code, reason.place, re.sub(r"\d[\d,.]*", "0", reason.text))
            _, texts, cells = groups.setdefault(alike, (reason, set(), []))
            texts.add(reason.text)
            if cell not in cells:
                cells.append(cell)
    return {(first, len(texts)): cells for first, texts, cells in sorted(groups.values(), key=lambda group: -len(group[2]))}


def shared_values(cells: Sequence[Cell]) -> str:
    """The values that cells have, by axis: `eye=a,b tongue=c`."""
    names = cells[0].values
    values = {name: dict.fromkeys(str(cell.values.get(name)) for cell in cells) for name in names}
    return " ".join(f"{name}={','.join(found)}" for name, found in values.items())
