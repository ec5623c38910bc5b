"""The table of a bench on the terminal, and the reasons why cells are not in it."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from modelgraft.commands import in_bytes, in_seconds, short_count
from modelgraft_plugins.benching.results import Cell, Reason, Results, Value

if TYPE_CHECKING:
    from modelgraft.commands import Screen
    from modelgraft_plugins.benching.checking import Checked

UNKNOWN = "?"
LEAST_WIDE, MOST_WIDE = 60, 160  # columns: below it nothing can be read, above it no eye follows a line


def say_checked(screen: Screen, checked: Checked) -> None:
    """Answer with the cells that fit, and why the others do not."""
    cells, every = [cell.planned for cell in checked.fitting], [*(cell.planned for cell in checked.fitting), *checked.pruned]
    names = varied(every)
    rows = [(*_named(cell, names), _count(cell.parameters), in_bytes(cell.memory.planned)) for cell in cells]
    screen.table(("cell", *names, "parameters", "bytes"), rows, right=frozenset({len(names) + 1, len(names) + 2}))
    say_pruned(screen, checked.pruned, of=len(every))


def say_results(screen: Screen, results: Results) -> None:
    """Answer with the figures of every cell that was measured, and why the others are not there."""
    cells = [cell for cell in results.cells if cell.state != "pruned"]
    names = varied(results.cells)
    rows = [(*_named(cell, names), cell.state, "-" if cell.wall_s is None else in_seconds(cell.wall_s.value)) for cell in cells]
    screen.table(("cell", *names, "state", "wall"), rows, right=frozenset({len(names) + 2}))
    say_pruned(screen, [cell for cell in results.cells if cell.state == "pruned"], of=len(results.cells))


def varied(cells: Sequence[Cell]) -> list[str]:
    """The axes on which cells differ; where they differ on none, the graph."""
    names = dict.fromkeys(name for cell in cells for name in cell.values)
    return [name for name in names if len({str(cell.values.get(name)) for cell in cells}) > 1] or list(names)[:1]


def shown(value: Value) -> str:
    """A value of an axis as a cell of a table has it: of a file its name alone."""
    text = str(value)
    return text.rpartition("/")[2] if text.endswith((".yaml", ".yml")) else text


def _named(cell: Cell, names: Sequence[str]) -> tuple[str, ...]:
    return cell.id, *(shown(cell.values.get(name, "")) for name in names)


def _count(number: int | None) -> str:
    return UNKNOWN if number is None else short_count(number)


# -- what is not in it --------------------------------------------------------------------------------------------------


def say_pruned(screen: Screen, pruned: Sequence[Cell], *, of: int) -> None:
    """Tell which cells do not fit, reasons that are alike once."""
    if not pruned:
        return
    screen.say(f"{len(pruned)} of {of} cells do not fit:" if len(pruned) < of else f"none of the {of} cells fits:")
    for reason, alike, cells in grouped(pruned):
        head = f"{_cells(len(cells))}, {among(cells, pruned)}: " if len(pruned) > 1 else ""
        place = f"{reason.place}  " if reason.place else ""
        first, *hints = reason.text.splitlines()
        more = f" ({alike - 1} more alike, of other sizes or origins)" if alike > 1 else ""
        _say_wrapped(screen, f"{head}{place}{reason.code}", "  ")
        for line in (first + more, *hints):
            _say_wrapped(screen, line, "      ")


def grouped(cells: Sequence[Cell]) -> Iterator[tuple[Reason, int, list[Cell]]]:
    """Reasons with the cells that have them, the most frequent first.

    Those that differ in numbers, or in where those come from, are one: told by the first, with how many texts they are.
    """
    groups: dict[tuple[str, str, str], tuple[Reason, set[str], list[Cell]]] = {}
    for cell in cells:
        for reason in cell.reasons:
            sentence = re.sub(r"\d[\d,.]*", "0", reason.text.partition(": ")[0])
            _, texts, those = groups.setdefault((reason.code, reason.place, sentence), (reason, set(), []))
            texts.add(reason.text)
            if cell not in those:
                those.append(cell)
    for first, texts, those in sorted(groups.values(), key=lambda group: -len(group[2])):
        yield first, len(texts), those


def among(cells: Sequence[Cell], every: Sequence[Cell]) -> str:
    """What tells cells from others: the values that they have, by each axis on which they do not have all."""
    told = []
    for name in varied(every):
        own, all_of = (dict.fromkeys(shown(cell.values.get(name, "")) for cell in some) for some in (cells, every))
        if len(own) < len(all_of):
            told.append(f"{name} {', '.join(own)}")
    return "; ".join(told) or "whatever is swept"


def _cells(number: int) -> str:
    return f"{number} cell{'s' * (number != 1)}"


def _say_wrapped(screen: Screen, text: str, indent: str) -> None:
    columns = min(MOST_WIDE, max(LEAST_WIDE, shutil.get_terminal_size((MOST_WIDE, 0)).columns))
    for line in textwrap.wrap(text, columns, initial_indent=indent, subsequent_indent=f"{indent}  ", break_on_hyphens=False):
        screen.say(line)
