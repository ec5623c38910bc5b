"""Evaluation suites: the command `eval`, and the suites that come with modelgraft. See README.md beside this file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from modelgraft.plugin import hookimpl


@hookimpl
def register_commands(app: Any) -> None:  # Any: a typer app, which is imported where there is a command line
    """Add `modelgraft eval`."""
    from modelgraft_plugins.evaluating.command import group

    app.add_typer(group(), name="eval")


@hookimpl(optionalhook=True)
def register_suites(register: Callable[[str, str], None]) -> None:
    """Offer the suites of modelgraft: a name, and where its class lies. Other plugins offer theirs by the same hook."""
    register("mmbench", "modelgraft_plugins.evaluating.mmbench.suite:MMBench")
    register("captioning", "modelgraft_plugins.evaluating.captioning:Captioning")
    register("vqa", "modelgraft_plugins.evaluating.answering:Answering")
    register("asr", "modelgraft_plugins.evaluating.recognising:Recognising")
    register("retrieval", "modelgraft_plugins.evaluating.retrieving:Retrieving")
    register("classification", "modelgraft_plugins.evaluating.classifying:Classifying")
