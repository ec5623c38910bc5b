"""Benchmarks of compositions: the command `bench`. Its README says how figures are taken, and how they are read."""

from __future__ import annotations

from typing import Any

from modelgraft import hookimpl


@hookimpl
def register_commands(app: Any) -> None:  # Any: typer is imported by the command alone
    """Add the command."""
    from modelgraft.commands import Answering
    from modelgraft_plugins.benching.command import bench

    app.command("bench", cls=Answering)(bench)
