"""The command that writes for others what a backend runs of a graph."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from modelgraft.cli.options import Allow, AsJson, GraphName, SetOptions, settings_of, with_opening
from modelgraft.cli.running import opened
from modelgraft.cli.session import session_of
from modelgraft.engine.opening import USUAL_OPENING, Opening


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("export")(export)


@with_opening("export")
def export(
    context: typer.Context,
    graph: GraphName,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A new folder for the segments, the manifest and run.py.")],
    settings: SetOptions = None,
    opening: Opening = USUAL_OPENING,
    allow: Allow = None,
    as_json: AsJson = False,
) -> None:
    """Write the ONNX segments of a graph, proven equal to torch, with a manifest and a script that runs them."""
    from modelgraft import api
    from modelgraft.tools.exporting import export_graph, exporting_backend

    session = session_of(context)
    solved = api.check(session.load(graph, settings_of(settings), allow or ()), offline=session.offline)
    backend = exporting_backend(session.registry)
    open_pipeline = partial(opened, session, opening=replace(opening, backend=backend))
    with session.screen.only_answers():
        manifest = export_graph(solved, out, backend=backend, open_pipeline=open_pipeline)
    if as_json:
        session.screen.document({"ok": True, "out": str(out), **manifest})
        return
    for text in manifest["warnings"]:
        session.screen.note(f"warning: {text}")
    rows = [
        ("+".join(part["nodes"]), part["precision"], f"{part['parity']['relative']:.1e}", part["folder"]) for part in manifest["segments"]
    ]
    session.screen.table(("nodes", "precision", "furthest from torch", "folder"), rows)
    if manifest["not_exported"]:
        kept = ", ".join(f"{name} ({component})" for name, component in manifest["not_exported"].items())
        session.screen.say(f"not in the export, because they are code or give text: {kept}")
