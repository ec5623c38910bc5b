"""Files that `training:` names: those of a document lie beside it, those of a user where he stands."""

from __future__ import annotations

from pathlib import Path

from modelgraft.kernel.words.graph import GraphSpec, Value
from modelgraft.records.homes import home_read


def data_beside(value: Value, graph: GraphSpec) -> str:
    """What a `data` or `valid` names, as it is opened: a name within a file of a graph is looked for beside that file."""
    name = str(value.value)
    if value.origin.layer not in ("file", "base") or home_read(name).is_absolute():
        return name
    home = value.home or (value.origin.place.file if value.origin.place is not None else "")
    folder = Path(home).parent if home else (graph.path.parent if graph.path is not None else Path())
    return str(folder / name)


def data_file(value: Value, graph: GraphSpec) -> Path | None:
    """The file that a `data` names, where it is one and there."""
    path = home_read(data_beside(value, graph))
    try:
        return path if path.is_file() else None
    except (OSError, ValueError):
        return None
