"""The command `train`."""

from __future__ import annotations

from dataclasses import asdict
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
    count,
    session_of,
    settings_of,
    with_opening,
)
from modelgraft.plugin import InputError
from modelgraft_plugins.training import require_accelerate

SWEEP = "Train variants side by side on one reading of the data: learning_rate=1e-3,1e-4, or a sweep file. Repeat for a matrix."


def folder_named(word: str) -> Path:
    """The folder that `--out` names. Raises InputError for a word that names none."""
    if not word.strip() or word == "-":
        raise InputError(f"--out '{word}' names no folder; leave it out, and trained files go to trained/GRAPH")
    return Path(word)


@with_opening(taking=("init", "device"))
def train(  # noqa: PLR0913, PLR0917 typer makes options of the arguments of a command
    context: typer.Context,
    graph: GraphName,
    stage: Annotated[
        str | None, typer.Option("--stage", metavar="N|NAME", help="The only stage to train; without it all, in order.")
    ] = None,
    data: Annotated[str | None, typer.Option("--data", metavar="FILE", help="What to train on, in place of what the graph names.")] = None,
    valid: Annotated[
        str | None, typer.Option("--valid", metavar="FILE|SHARE", help="What to evaluate on: data, or a share of them.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", parser=folder_named, help="Where trained files go; trained/GRAPH without it."),
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", metavar="N", parser=count, help="Updates of each stage.")] = None,
    batch: Annotated[int | None, typer.Option("--batch", metavar="N", parser=count, help="Records in a batch.")] = None,
    sweep: Annotated[list[str] | None, typer.Option("--sweep", metavar="NAME=A,B|FILE", help=SWEEP)] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after a run that was stopped.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Begin anew over a training, or go on although graph or data changed.")] = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out records that do not fit.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what it would take, by some timed steps, and train nothing.")] = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write events for TensorBoard beside each table.")] = False,
    settings: SetOptions = None,
    opening: Opening = USUAL_OPENING,
    allow: Allow = None,
    as_json: AsJson = False,
) -> None:
    """Train the parts of a graph that are not frozen, stage by stage; what it trained is a `from` for any graph."""
    require_accelerate()
    from modelgraft_plugins.training.processes import processes
    from modelgraft_plugins.training.running import train as run  # what a list of commands need not import
    from modelgraft_plugins.training.sweep_report import table_of

    session = session_of(context)
    loaded = session.load(graph, settings_of(settings), allow or ())
    with session.screen.only_answers():
        found = run(
            loaded,
            out=out or Path("trained") / loaded.spec.name,
            stage=stage,
            sweep=sweep or None,
            data=data,
            valid=_share(valid),
            steps=steps,
            batch=batch,
            device=opening.device,
            init=opening.init,
            resume=resume,
            force=force,
            skip_bad=skip_bad,
            dry_run=dry_run,
            tensorboard=tensorboard,
            offline=session.offline,
            note=session.screen.note,
            screen=session.screen if session.progress else None,
        )
    if not processes(on_cpu=opening.device == "cpu").is_main:
        return
    if as_json:
        folders = {name: str(path) for name, path in found.folder.items()}
        forecasts = {name: asdict(one) for name, one in found.forecasts.items()}
        table = {"sweep": [asdict(one) for one in found.table]} if found.table else {}
        session.screen.document({"ok": True, "folders": folders, "forecasts": forecasts, **table})
        return
    if found.table:
        head, rows = table_of(found.table)
        session.screen.table(head, rows, right=frozenset(range(2, len(head) - 1)))
    for name, path in found.folder.items():
        session.screen.say(f"{name}: {path}")


def _share(word: str | None) -> str | float | None:
    """A share of the data, where the word is a number."""
    try:
        number = float(word or "")
    except ValueError:
        return word
    return number
