"""Tables of models that somebody published, beside what our graphs of them count: `modelgraft graphs --table NAME`.

A plugin offers one by a hook that is not in the list of the kernel; `optionalhook` lets it stand where an older core lacks it:

    @hookimpl(optionalhook=True)
    def register_graph_tables(register):
        register("mmbench", Path(__file__).parent / "tables" / "mmbench.yaml")

The file holds `about`, and `rows` with the keys of PublishedModel.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from modelgraft.kernel.language.document import read_items
from modelgraft.kernel.shelf.registry import Registry
from modelgraft.kernel.words.errors import InputError, ModelgraftError, PluginError, choices, nearest
from modelgraft.kernel.words.guard import contained, said
from modelgraft.kernel.words.plan import Plan

HOOK = "register_graph_tables"
UNITS: Mapping[str, int] = {"k": 10**3, "M": 10**6, "B": 10**9}
_PUBLISHED = re.compile(r"([0-9]+(?:\.[0-9]+)?)([kMB])")
Verdict = Literal["same", "cut off", "differs", "not counted"]


class PublishedCount(BaseModel):
    """A number as it was published, such as 7.2B, and what is to be known where ours is another."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    published: str = Field(pattern=rf"^{_PUBLISHED.pattern}$")
    why: str = ""


class PublishedModel(BaseModel):
    """A model of a table.

    graph  a shipped graph or a file; "": there is none, and `why` says the reason.  set  what it is loaded with, as by `--set`
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    language: str
    vision: str
    parameters: PublishedCount
    trained: PublishedCount
    graph: str = ""
    set: dict[str, Any] = {}
    why: str = ""


class PublishedTable(BaseModel):
    """A table as its file has it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    about: str
    rows: tuple[PublishedModel, ...]


@dataclass(frozen=True, slots=True)
class Compared:
    """A row beside what its graph counts.

    parameters, trained  of the plan; None: not known.  verdicts  of these two.  notes  in sentences
    """

    row: PublishedModel
    parameters: int | None
    trained: int | None
    verdicts: tuple[Verdict, Verdict]
    notes: tuple[str, ...]


def tables_of(registry: Registry) -> dict[str, Path]:
    """The tables of the installed plugins, by name. Of a name the first plugin keeps it.

    Raises PluginError where a plugin fails while it offers.
    """
    manager = registry.manager
    caller = getattr(manager.hook, HOOK, None)
    there = {manager.get_name(one.plugin): one.plugin for one in caller.get_hookimpls()} if caller is not None else {}
    found: dict[str, Path] = {}
    for plugin in (name for name in registry.plugins if name in there):
        others = [other for other in there.values() if other is not there[plugin]]
        try:
            with contained():
                manager.subset_hook_caller(HOOK, others)(register=lambda name, path: found.setdefault(str(name), Path(path)))
        except Exception as error:
            raise PluginError(f"plugin '{plugin}' offers no more tables: {said(error)}") from error
    return found


def read_table(registry: Registry, name: str) -> PublishedTable:
    """The table of a name. Raises InputError with the tables that there are, or with what is wrong with its file."""
    found = tables_of(registry)
    if name not in found:
        raise InputError(f"there is no table '{name}'; there are: {choices(found)}. {nearest(name, found)}".strip())
    content = read_items(found[name]).plain()
    try:
        return PublishedTable.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"{found[name]}: {place}: {first['msg']}; a row has {choices(PublishedModel.model_fields, sort=False)}") from error


def compared(table: PublishedTable, plan: Callable[[str, Mapping[str, Any]], Plan]) -> Iterator[Compared]:
    """Each row of a table beside what its graph counts.

    plan  gives the plan of a graph that is loaded with settings; a ModelgraftError of it costs one row
    """
    for row in table.rows:
        if not row.graph:
            yield Compared(row, None, None, ("not counted", "not counted"), (row.why,))
            continue
        try:
            totals = plan(row.graph, row.set).totals
        except ModelgraftError as error:
            yield Compared(row, None, None, ("not counted", "not counted"), (str(error).partition("\n")[0],))
            continue
        verdicts = (verdict(row.parameters.published, totals.parameters), verdict(row.trained.published, totals.trainable))
        notes = tuple(note for note in (row.why, row.parameters.why, row.trained.why) if note)
        yield Compared(row, totals.parameters, totals.trainable, verdicts, notes)


def verdict(published: str, ours: int | None) -> Verdict:
    """Whether a count is what was published, at the digits that were printed.

    same     it rounds to the number;  cut off  its first digits are the number, which was not rounded
    differs  neither;  not counted  None was counted
    """
    if ours is None:
        return "not counted"
    match = _PUBLISHED.fullmatch(published)
    assert match is not None, "a PublishedCount holds nothing else"
    wanted = Decimal(match[1])
    exact = Decimal(ours) / UNITS[match[2]]
    if exact.quantize(wanted, ROUND_HALF_UP) == wanted:
        return "same"
    return "cut off" if exact.quantize(wanted, ROUND_DOWN) == wanted else "differs"
