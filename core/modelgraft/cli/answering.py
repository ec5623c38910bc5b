"""The class of the commands that answer: those that come with modelgraft, and those of plugins that ask for it."""

from __future__ import annotations

import re
from typing import Any

from typer.core import TyperCommand


class Answering(TyperCommand):
    """A command whose own words are the answer: nothing else that is printed meanwhile reaches stdout.

    A plugin adds one by `app.command("name", cls=Answering)`, and answers by `session_of(context).screen`.
    """

    def invoke(self, ctx: Any) -> Any:  # Any: typer brings click along under a name of its own
        """Run the command."""
        with ctx.obj.screen.only_answers():
            return super().invoke(ctx)

    def get_short_help_str(self, limit: int = 45) -> str:  # noqa: ARG002 as click calls it
        """What a list of commands says of it: the first sentence, which otherwise is cut after so many letters."""
        return re.split(r"(?<=\.)\s", " ".join((self.callback.__doc__ or "").split()), maxsplit=1)[0]
