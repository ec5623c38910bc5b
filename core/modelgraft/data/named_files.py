"""Files that records name: those beside their data first, then those where the command runs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelgraft.data.naming import is_file
from modelgraft.kernel.words.graph import GraphInput
from modelgraft.kernel.words.ports import ListOf, Modality, PortType
from modelgraft.records.record_type import Types

if TYPE_CHECKING:
    from modelgraft.data.datasets import DataRow

LONGEST_NAME = 1024  # of a file; what is longer is a text


def with_files_beside(rows: Iterable[DataRow], folder: Path, inputs: Mapping[str, GraphInput], types: Types) -> Iterator[DataRow]:
    """The rows, with names of files that lie in the folder of the data as they are seen from where the command runs.

    A name of which there is no file beside the data stays as it is, and is seen from where the command runs.
    """
    names = [item.name for item in inputs.values() if any(_names_files(kind, types) for kind in item.port.types)]
    talks = [item.name for item in inputs.values() if any(_is_talk(kind, types) for kind in item.port.types)]
    if not (names or talks) or _is_here(folder):
        yield from rows
        return
    for row in rows:
        found = {name: _beside(row.inputs[name], folder) for name in names if name in row.inputs}
        found |= {name: _told_beside(row.inputs[name], folder, types) for name in talks if name in row.inputs}
        yield replace(row, inputs={**row.inputs, **found}) if found else row


def _names_files(kind: PortType, types: Types) -> bool:
    return is_file(kind.item if isinstance(kind, ListOf) else kind, types)


def _is_talk(kind: PortType, types: Types) -> bool:
    return isinstance(kind, Modality) and types[kind.name].is_talk


def _told_beside(value: Any, folder: Path, types: Types) -> Any:  # Any: what a record holds
    """Messages with the names of files in their parts; what is no list of messages stays as it is, and is refused where it is read."""
    if not isinstance(value, list):
        return value
    return [
        {**message, "content": [_part_beside(part, folder, types) for part in message["content"]]}
        if isinstance(message, Mapping) and isinstance(message.get("content"), list)
        else message
        for message in value
    ]


def _part_beside(part: Any, folder: Path, types: Types) -> Any:  # Any: what a message holds
    medium = part.get("type") if isinstance(part, Mapping) else None
    is_named = isinstance(medium, str) and medium in part and medium in types and types[medium].is_file
    return {**part, medium: _beside(part[medium], folder)} if is_named else part


def _is_here(folder: Path) -> bool:
    try:
        return folder.samefile(Path())
    except OSError:
        return False


def _beside(value: Any, folder: Path) -> Any:  # Any: what a record holds
    if isinstance(value, list):
        return [_beside(one, folder) for one in value]
    if not isinstance(value, str) or not value or len(value) > LONGEST_NAME or value.startswith("~") or "\0" in value:
        return value
    found = os.path.join(folder, value)  # noqa: PTH118 for each record: a Path takes five times as long
    return found if os.path.exists(found) else value  # noqa: PTH110
