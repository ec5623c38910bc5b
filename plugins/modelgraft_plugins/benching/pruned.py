"""Why cells are not among the figures: reasons that are alike are told once, with what tells their cells from the others."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Callable, Iterator, Sequence

from modelgraft_plugins.benching.results import Cell, Reason, Value

Say = Callable[[str], None]

LEAST_WIDE, MOST_WIDE = 60, 160  # columns: below it nothing can be read, above it no eye follows a line


def varied(cells: Sequence[Cell]) -> list[str]:
    """The axes on which cells differ; where they differ on none, the graph."""
    names = dict.fromkeys(name for cell in cells for name in cell.values)
    return [name for name in names if len({str(cell.values.get(name)) for cell in cells}) > 1] or list(names)[:1]


def shown(value: Value) -> str:
    """A value of an axis as a cell of a table has it: of a file its name alone."""
    text = str(value)
    return text.rpartition("/")[2] if text.endswith((".yaml", ".yml")) else text


def say_pruned(say: Say, pruned: Sequence[Cell], *, every: Sequence[Cell]) -> None:
    """Tell which of all cells do not fit, reasons that are alike once."""
    of = len(every)
    if not pruned:
        return
    say(f"{len(pruned)} of {of} cells {'does' if len(pruned) == 1 else 'do'} not fit:" if len(pruned) < of else f"{none_of(of)}:")
    for reason, alike, cells in grouped(pruned):
        head = f"{in_cells(len(cells))}, {among(cells, every)}: " if of > 1 else ""
        place = f"{reason.place}  " if reason.place else ""
        first, *hints = reason.text.splitlines()
        more = f" ({alike - 1} more alike, of other sizes or origins)" if alike > 1 else ""
        say_wrapped(say, f"{head}{place}{reason.code}", "  ")
        for line in (first + more, *hints):
            say_wrapped(say, line, "      ")


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


def none_of(number: int) -> str:
    """The only cell does not fit; none of 2 cells fits."""
    return "the only cell does not fit" if number == 1 else f"none of the {number} cells fits"


def in_cells(number: int) -> str:
    """1 cell, 2 cells."""
    return f"{number} cell{'s' * (number != 1)}"


def say_wrapped(say: Say, text: str, indent: str = "") -> None:
    """Say a long line in as many as the terminal needs for it."""
    for line in textwrap.wrap(text, columns(), initial_indent=indent, subsequent_indent=f"{indent}  ", break_on_hyphens=False):
        say(line)


def columns() -> int:
    """How wide lines may be."""
    return min(MOST_WIDE, max(LEAST_WIDE, shutil.get_terminal_size((MOST_WIDE, 0)).columns))
