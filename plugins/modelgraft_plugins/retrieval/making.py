"""What the command `index` does: look at the model, the folder and the index that is there, encode what is missing, write, and tell."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import modelgraft as mg
from modelgraft.commands import Opening, Pace, Placing, counting, given_in, opened, types_of
from modelgraft.plugin import InputError, SolvedGraph
from modelgraft_plugins.retrieval.filed import Entry, Index, read_index, write_index
from modelgraft_plugins.retrieval.folders import Changes, compare, counted, files_of
from modelgraft_plugins.retrieval.given import read_given
from modelgraft_plugins.retrieval.header import NOWHERE, About
from modelgraft_plugins.retrieval.indexing import Growing, Task, encode
from modelgraft_plugins.retrieval.models import Model, differences, model_of
from modelgraft_plugins.retrieval.searching import graph_of, recall_of, unit

if TYPE_CHECKING:
    from collections.abc import Callable

    from modelgraft.commands import CliSession
    from modelgraft_plugins.retrieval.doors import Door


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the command was asked for beside graph, folder and file."""

    opening: Opening
    batch_size: int
    is_approximate: bool
    thumbnail: int
    as_json: bool


def make(session: CliSession, check: Callable[[], SolvedGraph], door: Door, folder: Path, out: Path, wishes: Wishes) -> None:
    """Bring an index up to date with a folder.

    check  gives the checked graph; asked again when its weights had to be fetched

    Raises InputError for an index of another model or of another folder, and where nothing could be read.
    """
    opening, is_approximate = wishes.opening, wishes.is_approximate
    start, note = time.perf_counter(), session.screen.note
    solved = _fetched(session, check, opening)
    model = _model(solved, door, opening)
    before = read_index(out) if out.exists() else None
    medium = types_of(solved.graph.registry)[door.medium]
    task = Task(folder, out, medium, model, door.input, door.output, wishes.thumbnail, is_approximate, wishes.batch_size)
    if before is not None:
        _refuse_other(before, task)
    entries, left_out = (before.entries, before.left_out) if before is not None else ((), ())
    changes = compare(files_of(folder, medium.reads, note), entries, left_out)
    growing = Growing.of(task, before, changes)
    if changes.fresh:
        _encode(session, solved, growing, changes, opening)
    is_same = before is not None and changes.is_nothing and (before.graph is not None) == is_approximate
    found = before if is_same and before is not None else growing.write(is_whole=True)
    _tell(session, found, changes, out, seconds=time.perf_counter() - start, as_json=wishes.as_json, encoded=len(changes.fresh))


def take(session: CliSession, check: Callable[[], SolvedGraph], door: Door, given: Path, out: Path, wishes: Wishes) -> None:
    """Make an index of vectors that the model of a graph made elsewhere, such as those that were published with it.

    Raises InputError for a file that is none of vectors, of vectors of another width, and for an index that is there already.
    """
    start, opening = time.perf_counter(), wishes.opening
    if out.exists():
        raise InputError(f"the index '{out}' is there already, and vectors that are given are not brought up to date: name another file")
    solved = _fetched(session, check, opening)
    model, medium = _model(solved, door, opening), types_of(solved.graph.registry)[door.medium]
    paths, found = read_given(given)
    if found.shape[1] != model.width:
        raise InputError(f"'{given}' holds vectors of {found.shape[1]:,} numbers, and {model.name} ({model.output}) makes {model.width:,}")
    vectors = unit(found)
    graph = graph_of(vectors) if wishes.is_approximate else None
    recall = recall_of(vectors, graph) if graph is not None else None
    about = About(model.width, len(paths), model.plain(), NOWHERE, medium.name, recall)
    index = Index(about, vectors, [Entry(path, "", "") for path in paths], [b""] * len(paths), [], graph)
    write_index(index, out)
    session.screen.note(f"the vectors of {given} are taken to be those of {model.name} ({model.output}): nothing in the file says so")
    _tell(
        session, index, Changes((), (), (), len(paths), 0, 0), out, seconds=time.perf_counter() - start, as_json=wishes.as_json, encoded=0
    )


def _encode(session: CliSession, solved: SolvedGraph, growing: Growing, changes: Changes, opening: Opening) -> None:
    """Open the graph, and encode what is new or changed: only now is anything loaded."""
    pace = Pace(len(changes.fresh))
    with (
        counting(session.screen, pace, is_on=session.progress) as (count, note),
        opened(session, solved, opening=replace(opening, cache_dir=None)) as pipeline,
    ):
        encode(pipeline, growing, changes.fresh, count=count, note=note)
        session.interrupts.raise_if_heard()  # a library may have swallowed it


def _fetched(session: CliSession, check: Callable[[], SolvedGraph], opening: Opening) -> SolvedGraph:
    """The graph with its weights on this machine, so that it can be told which they are."""
    solved = check()
    if opening.init == "random" or all(source.has_weights for node in solved.nodes.values() for _, source, _ in node.opened_sources()):
        return solved
    with opened(session, solved, opening=opening) as pipeline:
        pipeline.load()
    return check()


def _model(solved: SolvedGraph, door: Door, opening: Opening) -> Model:
    plan = mg.plan(solved, wanted=[door.output], **given_in(opening, Placing))
    return model_of(plan, door.output, seed=opening.seed)


def _refuse_other(before: Index, task: Task) -> None:
    """Raise InputError for an index of another model, of another folder that is still there, or of another medium."""
    about = before.about
    if told := list(differences(about.model, task.model)):
        found = f"the index '{task.out}' was made with {about.model['name']} ({about.model['output']})"
        asked = f"this is {task.model.name} ({task.model.output})"
        raise InputError(f"{found}, and {asked}: {'; '.join(told)}. Name another file, or delete it to embed all files anew")
    if about.root == NOWHERE:
        raise InputError(f"the index '{task.out}' holds vectors that were given, of no folder on this machine; name another file")
    if about.medium != task.medium.name:
        raise InputError(f"the index '{task.out}' is of files of type {about.medium}, and these are of type {task.medium.name}")
    if os.path.realpath(about.root) != os.path.realpath(task.root) and Path(about.root).is_dir():
        raise InputError(f"the index '{task.out}' is of the folder '{about.root}', and this is '{task.root}'; name another file")


def _tell(session: CliSession, index: Index, changes: Changes, out: Path, *, seconds: float, as_json: bool, encoded: int) -> None:
    facts: dict[str, Any] = {
        "files": index.about.entries, "new": changes.new, "changed": changes.changed, "gone": changes.gone, "encoded": encoded,
        "left_out": {entry.path: entry.why for entry in index.left_out}, "width": index.about.width, "model": index.about.model["name"],
        "recall": index.about.recall, "out": str(out), "seconds": seconds,
    }  # fmt: skip
    if as_json:
        session.screen.document({"ok": True, **facts})
        return
    parts = [counted(facts["files"]), *(f"{facts[name]:,} {name}" for name in ("new", "changed", "gone") if facts[name])]
    told = f"{', '.join(parts)}: {encoded:,} embedded" if encoded or not changes.is_nothing else f"{parts[0]}, as before: nothing to do"
    session.screen.note(f"{told}; {out} holds vectors of {index.about.width} numbers by {facts['model']}")
    if index.about.recall is not None:
        session.screen.note(f"the approximate graph finds {index.about.recall:.1%} of the ten nearest, measured with its own vectors")
    if index.left_out:
        session.screen.note(f"left out: {counted(len(index.left_out))}, such as {index.left_out[0].path}: {index.left_out[0].why}")
