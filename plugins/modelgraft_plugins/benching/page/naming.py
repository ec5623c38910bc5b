"""What cells are called in charts: the values that tell them apart, as short as can be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modelgraft_plugins.benching.page.amounts import value_text
from modelgraft_plugins.benching.results import Cell, Results, Value

LONGEST = 26  # letters of a value in a name
BETWEEN = " · "


@dataclass(frozen=True, slots=True)
class Names:
    """Of cells and of values.

    axes    those in which cells differ, in the order of the file
    of      by the id of a cell
    shorts  by axis, by value as text: how it is written in names
    """

    axes: tuple[str, ...]
    of: Mapping[str, str]
    shorts: Mapping[str, Mapping[str, str]]

    def value(self, cell: Cell, axis: str) -> str:
        """A value of a cell, short."""
        return self.shorts[axis][value_text(cell.values.get(axis))]


def names_of(results: Results) -> Names:
    """Name all cells."""
    axes = axes_of(results)
    different = tuple(axis for axis in axes if len({value_text(cell.values.get(axis)) for cell in results.cells}) > 1)
    shorts = {axis: _shorts([cell.values.get(axis) for cell in results.cells]) for axis in axes}
    names = {
        cell.id: BETWEEN.join(_said(axis, shorts[axis][value_text(cell.values.get(axis))], cell) for axis in different) or cell.id
        for cell in results.cells
    }
    taken = list(names.values())
    return Names(different, {id: name if taken.count(name) == 1 else f"{name} ({id})" for id, name in names.items()}, shorts)


def axes_of(results: Results) -> list[str]:
    """Every axis that the sweep or a cell has, in the order of the file."""
    return list(dict.fromkeys([*results.axes, *(axis for cell in results.cells for axis in cell.values)]))


def _said(axis: str, short: str, cell: Cell) -> str:
    """Numbers and marks need their axis beside them."""
    value = cell.values.get(axis)
    return f"{axis.rpartition('.')[2]} {short}" if value is None or isinstance(value, bool | int | float) else short


def _common_folder(texts: Sequence[str]) -> str:
    """What stands before the last "/" that all have in common."""
    if not texts:
        return ""
    folders = [text.split("/")[:-1] for text in texts]
    same = next((depth for depth, parts in enumerate(zip(*folders, strict=False)) if len(set(parts)) > 1), min(map(len, folders)))
    return "/".join(folders[0][:same])


def _shorts(values: Sequence[Value]) -> dict[str, str]:
    """Texts without the folders or the vendor that all of them have in common, cut when they are long, and still different."""
    texts = list(dict.fromkeys(value_text(value) for value in values))
    lead = _common_folder(texts)
    bare = [text[len(lead) + 1 :] if lead and len(text) > len(lead) + 1 else text for text in texts]
    cut = [text if len(text) <= LONGEST else f"{text[: LONGEST // 2 - 1]}…{text[-LONGEST // 2 :]}" for text in bare]
    return dict(zip(texts, cut if len(set(cut)) == len(cut) else bare, strict=True))
