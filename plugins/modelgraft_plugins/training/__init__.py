"""Training: the command `train`, and what `modelgraft.train` calls. See README.md beside this file."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

from modelgraft.plugin import InputError, hookimpl


@hookimpl
def register_commands(app: Any) -> None:  # Any: a typer app, which is imported where there is a command line
    """Add `modelgraft train`."""
    from modelgraft_plugins.training.command import train

    app.command("train")(train)


@hookimpl
def register_keepers(register: Callable[[str, str], None]) -> None:
    """Tell of the features that trainings keep."""
    register("features", "modelgraft_plugins.training.kept:KeepsFeatures")


def train(*arguments: Any, **options: Any) -> Any:  # Any: as `running.train` has them
    """Train a graph, as `modelgraft.train` does. Raises InputError where accelerate is not installed."""
    require_accelerate()
    from modelgraft_plugins.training.running import train as run

    return run(*arguments, **options)


def require_accelerate() -> None:
    """Raise InputError, with the way out, where what steps a training is not installed; asked before a module that imports it."""
    if importlib.util.find_spec("accelerate") is None:
        raise InputError("training needs the package accelerate: pip install 'modelgraft[train]'")
