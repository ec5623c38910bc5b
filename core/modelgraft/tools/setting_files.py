"""Files beside graphs that set things, such as sweeps: mappings of keys with values, with the place of every mistake."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from modelgraft.kernel.language.document import described
from modelgraft.kernel.language.yaml_reader import Item
from modelgraft.kernel.words.errors import Collector
from modelgraft.kernel.words.graph import GRAPH_PREFIX

BESIDE = ("./", "../")  # what a text begins with that names a file beside the one that it stands in


def entries_of(item: Item | None, what: str, problems: Collector) -> Mapping[str, Item]:
    """The entries of a mapping; none where there is no item. Anything else is noted, by what it is called."""
    if item is None:
        return {}
    if not isinstance(item.value, dict):
        problems.add("wrong-type", f"{what} is {described(item.value)}; wanted a mapping", place=item.at)
        return {}
    return item.value


def written_out(
    item: Item | None, what: str, problems: Collector, *, value: Callable[[Item], Any], whole: Collection[str] = ()
) -> Iterator[tuple[str, Any]]:  # Any: what YAML holds
    """Keys with values; a mapping within is written out: `{nodes.eye: {use: a}}` is `nodes.eye.use: a`.

    value  what a value becomes;  whole  keys whose mappings are values
    """
    for name, inner in entries_of(item, what, problems).items():
        if isinstance(inner.value, dict) and inner.value and name not in whole:
            found = written_out(inner, f"{what}.{name}", problems, value=value, whole=whole)
            yield from ((f"{name}.{key}", one) for key, one in found)
        else:
            yield name, value(inner)


def seen_from_here(text: str, folder: Path) -> str:
    """A text of a file in that folder; one that begins with `./` or `../`, also behind `graph:`, as it is seen from the working folder."""
    prefix = GRAPH_PREFIX if text.startswith(GRAPH_PREFIX) else ""
    name, mark, part = text.removeprefix(prefix).partition("#")
    return f"{prefix}{path_from_here(name, folder)}{mark}{part}" if name.startswith(BESIDE) else text


def path_from_here(name: str, folder: Path) -> str:
    """A file beside another, as it is seen from the working folder; with its `./`, so that it is a path to everybody."""
    found = os.path.relpath(folder / name)
    return found if found.startswith("..") else f"./{found}"
