"""No output replaces an input: what a command reads is compared with what it is about to write, before anything runs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from modelgraft.data.naming import takes_files
from modelgraft.kernel.words.errors import InputError
from modelgraft.records.homes import home_read
from modelgraft.records.record_type import types_of
from modelgraft.sources.own_files import is_of_checkpoint

if TYPE_CHECKING:
    from modelgraft.kernel.words.graph import SolvedGraph


def refuse_to_replace(out: Path, inputs: Mapping[Path, str], *, numbered: bool = False) -> None:
    """Raise InputError when writing a file would replace one that is read: under any name, through links, in other capitals.

    inputs    the files and folders that the command reads, and what each is in a message
    numbered  a batch goes into OUT-0, OUT-1, ... beside it: those are looked at too
    """
    for path, what in inputs.items():
        if _is_same(out, path) or (numbered and _is_numbered(out, path)):
            raise InputError(f"output '{out}' would replace {what} '{path}'; name another file")


def refuse_to_change(out: Path, folder: Path, what: str) -> None:
    """Raise InputError when writing a file would replace a file of a folder that is read, such as a checkpoint."""
    real = Path(os.path.realpath(out))
    if folder.is_dir() and os.path.lexists(out) and is_of_checkpoint(real) and real.is_relative_to(os.path.realpath(folder)):
        raise InputError(f"output '{out}' would replace a file of {what} '{folder}'; name another file")


def refuse_new(out: Path, why: str) -> None:
    """Raise InputError for a file that is there already, where a command only makes new ones."""
    if os.path.lexists(out):
        raise InputError(f"output '{out}' is there already, and {why}; name a new file, or delete it")


def files_of(solved: SolvedGraph) -> dict[Path, str]:
    """The documents that a graph was read from, the files of weights that its nodes name, and those that its inputs have as defaults."""
    found = {} if solved.graph.path is None else {solved.graph.path: "the graph"}
    types = types_of(solved.graph.registry)
    for item in solved.inputs.values():
        if isinstance(item.default, str) and takes_files(item.port, types):
            found[home_read(item.default)] = f"the default of input '{item.name}',"
    for node in solved.nodes.values():
        found.setdefault(Path(node.place.file), "the graph")
        for source in (node.source, *(adapter.source for adapter in node.adapters)):
            if source is not None and (path := source.path()) is not None and path.is_file():
                found[path] = "the weights"
    return found


def refuse_for_graph(out: Path, solved: SolvedGraph, inputs: Mapping[Path, str] | None = None, *, numbered: bool = False) -> None:
    """Raise InputError when writing a file would replace a document or a weight of a graph, or one of the inputs."""
    refuse_to_replace(out, {**files_of(solved), **(inputs or {})}, numbered=numbered)
    for folder in _folders_of(solved):
        refuse_to_change(out, folder, "the checkpoint")


def _folders_of(solved: SolvedGraph) -> Iterator[Path]:
    for node in solved.nodes.values():
        for source in (node.source, *(adapter.source for adapter in node.adapters)):
            if source is not None and source.folder is not None:
                yield source.folder


def _is_same(out: Path, path: Path) -> bool:
    try:
        return out.samefile(path)  # the same file of the disk, whatever it is called
    except OSError:
        return os.path.realpath(out) == os.path.realpath(path)


def _is_numbered(out: Path, path: Path) -> bool:
    beside = os.path.realpath(out.parent) == os.path.realpath(path.parent)
    pattern = rf"{re.escape(out.stem)}-\d+{re.escape(out.suffix)}"
    return beside and re.fullmatch(pattern, path.name, re.IGNORECASE) is not None


def named(paths: Iterable[Path], what: str) -> dict[Path, str]:
    """The same name for several files."""
    return dict.fromkeys(paths, what)
