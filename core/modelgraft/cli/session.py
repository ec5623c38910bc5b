"""What the commands of one process share: the options that hold for all of them, and the installed plugins."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import typer

from modelgraft.cli.interrupts import Interrupts

if TYPE_CHECKING:
    from modelgraft.building import Graph
    from modelgraft.cli.screen import Screen
    from modelgraft.kernel.shelf.registry import Registry


@dataclass
class CliSession:
    """One command.

    plugins   the only plugins to load; None: all that are installed
    offline   nothing is fetched
    progress  tell on stderr how far a run is
    debug     show tracebacks, and look at every call of a node for inputs that it writes to
    begin     what is called before a command that does more than look at graphs and plugins; None in a process of others
    looks     the command looks after the cache: it writes nothing there for the next command
    """

    screen: Screen
    plugins: tuple[str, ...] | None = None
    offline: bool = False
    progress: bool = True
    debug: bool = False
    begin: Callable[[], None] | None = None
    looks: bool = False
    interrupts: Interrupts = field(default_factory=Interrupts)

    @cached_property
    def registry(self) -> Registry:
        """The installed plugins; loaded when a command first needs them."""
        from modelgraft.installed.making_many import making_many

        with making_many():
            found = self._found()
            if self.begin is not None:
                gc.freeze()  # they stay: looking through all of them for garbage, as a first start would, takes 40 ms each time
        return found

    def _found(self) -> Registry:
        with self.interrupts.at_once(), self.screen.only_answers():
            if self.plugins is None:
                from modelgraft.installed.indexed import registry_in
                from modelgraft.sources.installed_plugins import PLUGINS
                from modelgraft.sources.storage import root_of_what_is_kept

                return registry_in(root_of_what_is_kept() / PLUGINS, keep=not self.looks)
            from modelgraft.installed.discovery import discover

            return discover(only=self.plugins)

    def is_first(self) -> bool:
        """Whether no command has kept anything of the plugins in the cache: nothing that a node could be loaded from is there either."""
        from modelgraft.sources.installed_plugins import PLUGINS
        from modelgraft.sources.storage import root_of_what_is_kept

        return not os.path.exists(root_of_what_is_kept() / PLUGINS)  # noqa: PTH110 that of pathlib raises where nobody may look

    def made_once(self, name: str, make: Callable[[], Any], *, beside: object = None) -> Any:  # Any: JSON
        """What is made of all that is installed, kept for the next command; see `modelgraft.installed.made_once`."""
        from modelgraft.installed.made_once import made_once

        return make() if self.looks else made_once(self.registry, name, make, beside=beside)

    def read_general(self, words: Sequence[str]) -> None:
        """Take `--plugins` out of the words before they are parsed: plugins may bring commands of their own."""
        for word, value in pairwise(words):
            if word == "--plugins":
                self.plugins = read_only(value)

    def load(self, graph: str, settings: Mapping[str, str] | None = None, allow: Sequence[str] = ()) -> Graph:
        """Read a graph with what the user sets."""
        from modelgraft import api

        if unknown := next((word for word in allow if word != "unused"), None):
            raise typer.BadParameter(f"--allow takes unused, found '{unknown}'")
        return api.load(graph, params=dict(settings or {}), registry=self.registry, allow=tuple(allow))


def read_only(text: str) -> tuple[str, ...]:
    """Read `only=a,b`; anything else is a usage error."""
    word, _, names = text.partition("=")
    if word != "only":
        raise typer.BadParameter(f"--plugins takes only=NAME,NAME, found '{text}'; `--plugins only=` loads none")
    return tuple(name.strip() for name in names.split(",") if name.strip())


def session_of(context: typer.Context) -> CliSession:
    """The session that a command belongs to."""
    found: Any = context.obj  # Any: typer does not know the type of what is handed through
    assert isinstance(found, CliSession)
    return found
