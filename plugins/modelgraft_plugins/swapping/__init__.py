"""What fits in place of a node, and what that changes: the command `modelgraft swap`."""

from __future__ import annotations

from typing import Any

from modelgraft import hookimpl


@hookimpl
def register_commands(app: Any) -> None:  # Any: typer is imported by the command alone
    """Add the command."""
    from modelgraft.commands import Answering
    from modelgraft_plugins.swapping.command import swap

    app.command("swap", cls=Answering)(swap)
