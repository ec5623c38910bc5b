"""Installed plugins, loaded one by one under a guard, and what they offer.

A plugin that breaks while it loads is quarantined: it is named with its error and its place, and does not take part.
One that offers a name which another has loses that name alone. Who comes first keeps it: what ships with modelgraft, then
distributions by their names; so nothing that is installed later disables what was there. Nothing fails until a graph needs it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.metadata import Distribution, EntryPoint, entry_points
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pluggy

from modelgraft.kernel.shelf import hooks
from modelgraft.kernel.shelf.offers import RESERVED, Card, Lost, Offers, overlaps
from modelgraft.kernel.words.backends import BackendCard
from modelgraft.kernel.words.errors import Place, PluginError, choices, nearest
from modelgraft.kernel.words.guard import contained, place_of, said
from modelgraft.kernel.words.kinds import Component
from modelgraft.kernel.words.ports import RecordKind

__all__ = ["GROUP", "KNOWN", "SHIPPED", "Known", "Lost", "Plugin", "Registry", "assemble", "discover"]

GROUP = "modelgraft"  # the entry-point group of plugins
SHIPPED = "modelgraft"  # the distribution whose plugins come first
OWN_RECORDS = "modelgraft.records.shipped"  # the record types that are always there: like a plugin they are named, not imported, here
OWN = "modelgraft itself"  # who has the names that no plugin can take


@dataclass(slots=True)
class Known:
    """The cards of families of every plugin that this process has loaded.

    cards         by name: who came first keeps it;  is_complete  those of all installed plugins are among them
    """

    cards: dict[str, Card] = field(default_factory=dict)
    is_complete: bool = False


KNOWN = Known()


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
        return _normal(self.distribution) == SHIPPED


@dataclass(frozen=True, slots=True)
class Registry:
    """What the installed plugins offer. Immutable: installing a plugin makes a new registry in a new process."""

    plugins: Mapping[str, Plugin]
    components: Mapping[str, Component]
    record_types: Mapping[str, RecordKind]
    recorded_configs: Mapping[str, Path]
    weight_readers: Mapping[str, str]
    backends: Mapping[str, BackendCard]
    families: Mapping[str, Card]
    keepers: Mapping[str, str]
    manager: pluggy.PluginManager = field(compare=False, repr=False)
    owners: Mapping[tuple[str, str], str] = field(default_factory=lambda: MappingProxyType({}))  # (what, name) -> its plugin

    def find(self, id: str) -> Component | None:
        """The component of this id (`namespace/name` or `namespace/name@version`), or None."""
        name, _, version = id.partition("@")
        found = self.components.get(name)
        return found if found is not None and version in ("", str(found.version)) else None

    def backend(self, name: str) -> BackendCard:
        """What is known of a backend. Raises PluginError for a name that no plugin offers."""
        if name not in self.backends:
            near = nearest(name, self.backends)
            raise PluginError(f"no plugin offers the backend '{name}'; there is: {choices(self.backends)}. {near}".strip())
        return self.backends[name]

    def quarantined(self) -> dict[str, Plugin]:
        """The plugins that could not be loaded."""
        return {name: plugin for name, plugin in self.plugins.items() if plugin.error}

    def contenders(self, what: str, name: str) -> list[str]:
        """The plugins that offered a name which another has, such as ("component", "text/first")."""
        return [plugin.name for plugin in self.plugins.values() for lost in plugin.lost if (lost.what, lost.name) == (what, name)]


def discover(*, only: Collection[str] | None = None) -> Registry:
    """Load the installed plugins: those of modelgraft, then the others in the order of their distributions' names.

    only  the names of the plugins to load; None loads all, an empty collection none. Raises PluginError for a name
          that is not installed.
    """
    points = _named(entry_points(group=GROUP))
    if only is not None:
        unknown = sorted(set(only) - set(points))
        if unknown:
            raise PluginError(f"no plugin named {', '.join(unknown)} is installed; there are: {choices(points)}")
        points = {name: point for name, point in points.items() if name in only}
    building = _Building()
    for name, point in points.items():
        building.load(name, point)
    KNOWN.is_complete = KNOWN.is_complete or only is None
    return building.finish()


def assemble(modules: Mapping[str, Any]) -> Registry:
    """Make a registry of plugin modules or objects given by name: for tests and notebooks."""
    building = _Building()
    for name in sorted(modules):
        building.add(Plugin(name, getattr(modules[name], "__name__", name), "", ""), modules[name])
    return building.finish()


def _normal(distribution: str) -> str:
    """A name as the package index compares them."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _named(points: Collection[EntryPoint]) -> dict[str, EntryPoint]:
    """Entry points by the name that their plugin goes by: the first of a name keeps it, others are told apart by distribution."""
    found: dict[str, EntryPoint] = {}
    for point in sorted(points, key=_precedence):
        distribution = point.dist.name if point.dist else ""
        names = (point.name, f"{distribution}:{point.name}", f"{distribution}:{point.name}:{point.value}")
        free = next((name for name in names if name not in found), None)
        if free is not None:  # all three are taken by the same line, read twice
            found[free] = point
    return found


def _precedence(point: EntryPoint) -> tuple[bool, str, str, str]:
    distribution = _normal(point.dist.name) if point.dist else ""
    return distribution != SHIPPED, distribution, point.name, point.value


class _Building:
    """A registry while plugins are being added to it, the first in precedence first."""

    def __init__(self) -> None:
        self.manager = pluggy.PluginManager("modelgraft")
        self.manager.add_hookspecs(hooks)
        self.plugins: dict[str, Plugin] = {}
        self.offers = Offers("")
        self.offers.record_types.update(import_module(OWN_RECORDS).SHIPPED)
        self.owners: dict[tuple[str, str], str] = {(what, name): OWN for what, names in RESERVED.items() for name in names}
        self.owners |= {("record type", name): OWN for name in self.offers.record_types}

    def load(self, name: str, point: EntryPoint) -> None:
        distribution: Distribution | None = point.dist
        plugin = Plugin(name, point.value, distribution.name if distribution else "", distribution.version if distribution else "")
        try:
            with contained():
                module = point.load()
        except Exception as error:  # noqa: BLE001 a plugin may raise anything while it is imported
            self._quarantine(plugin, error)
            return
        self.add(plugin, module)

    def add(self, plugin: Plugin, module: Any) -> None:
        try:
            with contained():
                self.manager.register(module, name=plugin.name)
                self.manager.check_pending()
                offers = self._collect(plugin.name, module)
        except Exception as error:  # noqa: BLE001 a plugin may raise anything while it registers
            if self.manager.has_plugin(plugin.name):
                self.manager.unregister(name=plugin.name)
            self._quarantine(plugin, error)
            return
        lost = [*offers.lost, *self._take(offers)]
        self.plugins[plugin.name] = replace(plugin, components=tuple(sorted(offers.components)), lost=tuple(lost))

    def _quarantine(self, plugin: Plugin, error: Exception) -> None:
        self.plugins[plugin.name] = replace(plugin, error=said(error), place=place_of(error, plugin.module))

    def _collect(self, name: str, module: Any) -> Offers:
        offers = Offers(name)
        others = [plugin for plugin in self.manager.get_plugins() if plugin is not module]
        hook = self.manager.subset_hook_caller
        hook("register_components", others)(register=offers.add_component)
        hook("register_record_types", others)(register=offers.add_record_type)
        hook("register_port_types", others)(register=offers.refuse_port_type)
        hook("register_recorded_configs", others)(register=offers.add_recorded_config)
        hook("register_weight_readers", others)(register=offers.add_weight_reader)
        hook("register_backends", others)(register=offers.add_backend)
        hook("register_families", others)(register=offers.add_family)
        hook("register_keepers", others)(register=offers.add_keeper)
        return offers

    def _take(self, offers: Offers) -> list[Lost]:
        """Take over what nobody has; gives what is lost, and drops it from the offers."""
        lost = []
        for what, name in offers.names():
            owner = self.owners.get((what, name)) or self._owner_of_overlapping(what, name)
            if owner is not None:
                lost.append(Lost(what, name, owner))
                offers.drop(what, name)
            else:
                self.owners[what, name] = offers.plugin
        self.offers.update(offers)
        return lost

    def _owner_of_overlapping(self, what: str, name: str) -> str | None:
        """Who has a name that this one would take something from, though they are not equal: `.q4.gguf` of `.gguf`."""
        return next((owner for (kind, known), owner in self.owners.items() if kind == what and overlaps(what, name, known)), None)

    def finish(self) -> Registry:
        for name, card in self.offers.families.items():
            KNOWN.cards.setdefault(name, card)
        tables = {name: MappingProxyType(dict(sorted(table.items()))) for name, table in self.offers.tables.items()}
        found = MappingProxyType(self.plugins), MappingProxyType(self.owners)
        return Registry(plugins=found[0], owners=found[1], manager=self.manager, **tables)
