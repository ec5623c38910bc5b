"""Drawings of emoji by several hands with their names: small real data to train and judge parts by. See README.md beside this file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from modelgraft import hookimpl

PRESETS = ("drawings-draw", "drawings-kinds", "drawings-look", "drawings-memory")


@hookimpl
def register_recorded_configs(register: Callable[[str, Any], None]) -> None:
    """Offer the weights that were trained on the drawings: see `presets/README.md`."""
    presets = Path(__file__).parent / "presets"
    for name in PRESETS:
        register(f"preset:{name}", presets / name)


@hookimpl
def register_commands(app: Any) -> None:  # Any: a typer app, which is imported where there is a command line
    """Add `modelgraft drawings`."""
    from modelgraft.commands import Answering
    from modelgraft_plugins.drawings.command import drawings

    app.command("drawings", cls=Answering)(drawings)
