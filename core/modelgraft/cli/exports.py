"""Commands about ONNX exports: writing them for others, and looking after the cache of one's own."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from modelgraft import api
from modelgraft.amounts import in_bytes
from modelgraft.cli.options import Allow, AsJson, Device, Fallback, GraphName, Precision, Settings, settings_of
from modelgraft.cli.running import Init, Seed, opened
from modelgraft.cli.session import session_of


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("export")(export)
    cache = typer.Typer(no_args_is_help=True, help="See and clear what is kept on this machine.")
    cache.command("list")(cache_list)
    cache.command("clear")(cache_clear)
    app.add_typer(cache, name="cache")


def export(
    context: typer.Context,
    graph: GraphName,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A new folder for the segments, the manifest and run.py.")],
    settings: Settings = None,
    device: Device = None,
    precision: Precision = None,
    fallback: Fallback = None,
    seed: Seed = 0,
    init: Init = None,
    allow: Allow = None,
    as_json: AsJson = False,
) -> None:
    """Write the ONNX segments of a graph, proven equal to torch, with a manifest and a script that runs them."""
    from modelgraft.exporting import export_graph

    session = session_of(context)
    solved = api.check(session.load(graph, settings_of(settings), allow or ()), offline=session.offline)
    open_pipeline = partial(
        opened, session, backend="onnx", device=device, dtype=None, precision=precision, fallback=fallback, seed=seed, init=init
    )
    with session.screen.only_answers():
        manifest = export_graph(solved, out, open_pipeline=open_pipeline)
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


def cache_list(context: typer.Context, as_json: AsJson = False) -> None:
    """List the ONNX exports that are kept, the oldest first."""
    from modelgraft.backends.onnx import store

    screen = session_of(context).screen
    found = [(entry, store.size_of(entry)) for entry in store.entries()]
    if as_json:
        documents = [{"key": entry.folder.name, "bytes": size, "folder": str(entry.folder), **entry.manifest} for entry, size in found]
        screen.document(documents)
        return
    rows = [
        (
            entry.folder.name[:12],
            str(entry.manifest.get("component", "?")),
            str(entry.manifest.get("precision", "?")),
            f"{entry.manifest['parity']['relative']:.1e}" if "parity" in entry.manifest else "?",
            in_bytes(size),
        )
        for entry, size in found
    ]
    screen.table(("key", "component", "precision", "furthest from torch", "bytes"), rows, right=frozenset({4}))
    screen.say(f"{len(found)} exports, {in_bytes(sum(size for _, size in found))}, in {store.exports_root()}")


def cache_clear(context: typer.Context, as_json: AsJson = False) -> None:
    """Delete the ONNX exports that are kept: they are made again when they are needed."""
    from modelgraft.backends.onnx import store

    screen = session_of(context).screen
    found = store.entries()
    total = sum(map(store.size_of, found))
    shutil.rmtree(store.exports_root(), ignore_errors=True)
    if as_json:
        screen.document({"ok": True, "exports": len(found), "bytes": total})
    else:
        screen.say(f"deleted {len(found)} exports, {in_bytes(total)}")
