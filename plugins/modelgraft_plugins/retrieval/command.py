"""The command `index`: embed the files of a folder with a graph, and keep their vectors to be searched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from modelgraft.commands import (
    USUAL_OPENING,
    Allow,
    AsJson,
    GraphName,
    Opening,
    SetOptions,
    check_writable,
    count,
    out_file,
    refuse_for_graph,
    session_of,
    settings_of,
    with_opening,
)
from modelgraft.plugin import InputError, SolvedGraph, locked
from modelgraft_plugins.retrieval.doors import door_of
from modelgraft_plugins.retrieval.header import ENDING

GIVEN = ".pkl"  # of vectors that were made elsewhere: see given.py
THUMBNAIL_PX = 160
LARGEST_PX = 1024


@with_opening("map")
def index(  # noqa: PLR0913, PLR0917 typer makes options of the arguments of a command
    context: typer.Context,
    graph: GraphName,
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", help="The files: those in it, and in the folders in it; or a .pkl of vectors that were made of them."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", parser=out_file, help="The index, a .safetensors file; what it holds already is kept.")
    ],
    output: Annotated[
        str | None, typer.Option("--output", metavar="K", help="The vector that is kept of each file: an output, or any port as node.port.")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", metavar="N", parser=count, help="How many files run together.")] = 8,
    approximate: Annotated[
        bool, typer.Option("--approximate", help="Make a graph for search among millions too; what it misses is measured and told.")
    ] = False,
    thumbnail: Annotated[
        int, typer.Option("--thumbnail", metavar="PX", help="The longest side of the small pictures that are kept for sheets; 0: none.")
    ] = THUMBNAIL_PX,
    settings: SetOptions = None,
    opening: Opening = USUAL_OPENING,
    allow: Allow = None,
    as_json: AsJson = False,
) -> None:
    """Embed the files of a folder, to find them by what is in them. What an index holds already is not embedded again."""
    import modelgraft as mg

    session = session_of(context)
    if not 0 <= thumbnail <= LARGEST_PX:
        raise typer.BadParameter(f"--thumbnail takes 0 to {LARGEST_PX} pixels, found {thumbnail}")
    if out.suffix.lower() != ENDING:
        raise InputError(f"output '{out}': an index is a file such as {out.stem}{ENDING}")
    is_given = folder.is_file() and folder.suffix.lower() == GIVEN
    if not folder.is_dir() and not is_given:
        raise InputError(f"there is no folder '{folder}'; wanted: the folder of the files that are to be found")

    def check() -> SolvedGraph:
        return mg.check(session.load(graph, settings_of(settings), allow or ()), offline=session.offline)

    solved = check()
    refuse_for_graph(out, solved)
    check_writable(out)
    door = door_of(solved, output)
    with _alone(out):
        from modelgraft_plugins.retrieval.making import Wishes, make, take  # numpy, which a mistake need not wait for

        wishes = Wishes(
            opening=opening, batch_size=batch_size, is_approximate=approximate, thumbnail=thumbnail, as_json=as_json
        )  # fmt: skip
        (take if is_given else make)(session, check, door, folder, out, wishes)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold the index against other processes that would write it. Raises InputError when one does."""
    lock = out.with_name(f".{out.name}.lock")
    with locked(lock, waits=False) as is_ours:
        if not is_ours:
            raise InputError(f"the index '{out}' is being written by another process; wait for it, or name another file")
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
