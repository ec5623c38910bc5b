"""What is installed, as a value: the plugins, and what they offer. Who finds and loads them hands it in (`modelgraft/installed`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pluggy

from modelgraft.kernel.words.backends import UNCHOSEN, BackendCard
from modelgraft.kernel.words.errors import Place, PluginError, choices, nearest
from modelgraft.kernel.words.kinds import Component
from modelgraft.kernel.words.ports import Port, RecordKind

OWN_DISTRIBUTION = "modelgraft"  # the distribution whose plugins come first


def _takes_all(port: Port, value: Any, types: Mapping[str, RecordKind]) -> None:  # noqa: ARG001 whoever reads records looks at them
    return None


@dataclass(frozen=True, slots=True)
class Card:
    """What is known of a family of checkpoints, as data that the kernel keeps and does not look into.

    name  in messages and lists;  doc  what it is, in one line
    """

    name: str
    doc: str


@dataclass(frozen=True, slots=True)
class Lost:
    """A name that a plugin offered and does not have.

    what   "component", "record type", "recorded config", "weight reader", "backend", "family", "kept kind" or "command"
    owner  who has it
    """

    what: str
    name: str
    owner: str

    def __str__(self) -> str:
        return f"{self.what} {self.name} (it belongs to {self.owner})"


@dataclass(frozen=True, slots=True)
class Plugin:
    """An installed plugin: its entry point, where it comes from, what it offers, and its error if it is quarantined.

    name   of its entry point; `distribution:name` where another plugin has that name already
    place  where in its code the error comes from, as far as that is known
    lost   what it offered and does not have
    """

    name: str
    module: str
    distribution: str
    version: str
    components: tuple[str, ...] = ()
    error: str = ""
    place: Place | None = None
    lost: tuple[Lost, ...] = ()

    @property
    def trouble(self) -> str:
        """Its error with its place, or ""."""
        return f"{self.place}: {self.error}" if self.error and self.place else self.error

    @property
    def is_shipped(self) -> bool:
        """It comes with modelgraft."""
        return normal(self.distribution) == OWN_DISTRIBUTION


def normal(distribution: str) -> str:
    """A name as the package index compares them."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


@dataclass(frozen=True, slots=True)
class Registry:
    """What the installed plugins offer. Immutable: installing a plugin makes a new registry in a new process.

    owners  (what, name) -> the plugin that has it
    misfit  what a value that stands in a graph should have been to go through a port, None when it fits; records as `record_types` say
    """

    plugins: Mapping[str, Plugin]
    components: Mapping[str, Component]
    record_types: Mapping[str, RecordKind]
    recorded_configs: Mapping[str, Path]
    weight_readers: Mapping[str, str]
    backends: Mapping[str, BackendCard]
    families: Mapping[str, Card]
    keepers: Mapping[str, str]
    manager: pluggy.PluginManager = field(compare=False, repr=False)
    owners: Mapping[tuple[str, str], str] = field(default_factory=lambda: MappingProxyType({}))
    misfit: Callable[[Port, Any, Mapping[str, RecordKind]], str | None] = field(default=_takes_all, compare=False, repr=False)

    def find(self, id: str) -> Component | None:
        """The component of this id (`namespace/name` or `namespace/name@version`), or None."""
        name, _, version = id.partition("@")
        found = self.components.get(name)
        return found if found is not None and version in ("", str(found.version)) else None

    def backend(self, name: str) -> BackendCard:
        """What is known of a backend. Raises PluginError for a name that no plugin offers."""
        if name not in self.backends:
            there = {UNCHOSEN, *self.backends}
            raise PluginError(f"no plugin offers the backend '{name}'; there is: {choices(there)}. {nearest(name, there)}".strip())
        return self.backends[name]

    def quarantined(self) -> dict[str, Plugin]:
        """The plugins that could not be loaded."""
        return {name: plugin for name, plugin in self.plugins.items() if plugin.error}

    def contenders(self, what: str, name: str) -> list[str]:
        """The plugins that offered a name which another has, such as ("component", "text/first")."""
        return [plugin.name for plugin in self.plugins.values() for lost in plugin.lost if (lost.what, lost.name) == (what, name)]
