"""Drawings of emoji by several hands with their names: small real data to train and judge parts by. See README.md beside this file."""

from __future__ import annotations

from typing import Any

from modelgraft import hookimpl


@hookimpl
def register_commands(app: Any) -> None:  # Any: a typer app, which is imported where there is a command line
    """Add `modelgraft drawings`."""
    from modelgraft.commands import Answering
    from modelgraft_plugins.drawings.command import drawings

    app.command("drawings", cls=Answering)(drawings)
