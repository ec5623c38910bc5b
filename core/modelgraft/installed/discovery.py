"""Installed plugins, loaded one by one under a guard, and what they offer.

A plugin that breaks while it loads is quarantined: it is named with its error and its place, and does not take part.
One that offers a name which another has loses that name alone. Who comes first keeps it: what ships with modelgraft, then
distributions by their names; so nothing that is installed later disables what was there. Nothing fails until a graph needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib import metadata
from importlib.metadata import Distribution, EntryPoint, entry_points
from types import MappingProxyType
from typing import Any

import pluggy

from modelgraft.installed.making_many import making_many
from modelgraft.installed.offers import CORE_NAMES, Offers, may_overlap
from modelgraft.kernel.shelf import hooks
from modelgraft.kernel.shelf.registry import OWN_DISTRIBUTION, Card, Lost, Plugin, Registry, normal
from modelgraft.kernel.words.errors import PluginError, choices
from modelgraft.kernel.words.guard import contained, place_of, said
from modelgraft.records.defaults import wanted_default
from modelgraft.records.shipped import SHIPPED as SHIPPED_RECORDS

GROUP = "modelgraft"  # the entry-point group of plugins
OWN = "modelgraft itself"  # who has the names that no plugin can take


@dataclass(slots=True)
class Known:
    """The cards of families of every plugin that this process has loaded.

    cards         by name: who came first keeps it;  is_complete  those of all installed plugins are among them
    rest          loads the plugins that have cards, and puts these here, where it is known which plugins that are
    """

    cards: dict[str, Card] = field(default_factory=dict)
    is_complete: bool = False
    rest: Callable[[], object] | None = None

    def complete(self) -> None:
        """Load the plugins whose cards are not here yet."""
        if not self.is_complete:
            self.is_complete = True  # before plugins are loaded: one may ask while it is
            (self.rest or discover)()


KNOWN = Known()


def discover(*, only: Collection[str] | None = None) -> Registry:
    """Load the installed plugins: those of modelgraft, then the others in the order of their distributions' names.

    only  the names of the plugins to load; None loads all, an empty collection none

    Raises PluginError for a name that is not installed.
    """
    points = _named(entry_points(group=GROUP))
    if only is not None:
        unknown = sorted(set(only) - set(points))
        if unknown:
            raise PluginError(f"no plugin named {', '.join(unknown)} is installed; there are: {choices(points)}")
        points = {name: point for name, point in points.items() if name in only}
    building = _Building()
    with making_many():
        for name, point in points.items():
            building.load(Plugin(name, point.value, *_identity(point.dist)), point)
    KNOWN.is_complete = KNOWN.is_complete or only is None
    return building.finish()


def is_usual() -> bool:
    """Whether what is installed is found as it is here; whoever has put something else in the place of it says so himself."""
    return entry_points is metadata.entry_points and discover.__module__ == __name__


def load_one(point: EntryPoint, plugin: Plugin) -> Offers | Plugin:
    """What a plugin offers, whoever else offers it too; the plugin with its error where it fails."""
    building = _Building()
    with making_many():
        building.load(plugin, point)
    found = building.plugins[plugin.name]
    return found if found.error else building.offers


def assemble(modules: Mapping[str, Any]) -> Registry:
    """Make a registry of plugin modules or objects given by name: for tests and notebooks."""
    building = _Building()
    for name in sorted(modules):
        building.add(Plugin(name, getattr(modules[name], "__name__", name), "", ""), modules[name])
    return building.finish()


def _named(points: Collection[EntryPoint]) -> dict[str, EntryPoint]:
    """Entry points by the name that their plugin goes by: the first of a name keeps it, others are told apart by distribution."""
    found: dict[str, EntryPoint] = {}
    for point in sorted(points, key=_precedence):
        distribution = _identity(point.dist)[0]
        names = (point.name, f"{distribution}:{point.name}", f"{distribution}:{point.name}:{point.value}")
        free = next((name for name in names if name not in found), None)
        if free is not None:  # all three are taken by the same line, read twice
            found[free] = point
    return found


@lru_cache(maxsize=256)  # its metadata are read anew at every question
def _identity(distribution: Distribution | None) -> tuple[str, str]:
    """Name and version of a distribution; "" where there is none."""
    return ("", "") if distribution is None else (distribution.name, distribution.version)


def _precedence(point: EntryPoint) -> tuple[bool, str, str, str]:
    distribution = normal(_identity(point.dist)[0])
    return distribution != OWN_DISTRIBUTION, distribution, point.name, point.value


class _Building:
    """A registry while plugins are being added to it, the first in precedence first."""

    def __init__(self) -> None:
        self.manager = pluggy.PluginManager("modelgraft")
        self.manager.add_hookspecs(hooks)
        self.plugins: dict[str, Plugin] = {}
        self.offers = Offers("")
        self.offers.record_types.update(SHIPPED_RECORDS)
        self.owners: dict[tuple[str, str], str] = {(what, name): OWN for what, names in CORE_NAMES.items() for name in names}
        self.owners |= {("record type", name): OWN for name in self.offers.record_types}

    def load(self, plugin: Plugin, point: EntryPoint) -> None:
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
        if not may_overlap(what):
            return None
        return next((owner for (kind, known), owner in self.owners.items() if kind == what and name.endswith(known)), None)

    def finish(self) -> Registry:
        for name, card in self.offers.families.items():
            KNOWN.cards.setdefault(name, card)
        tables = {name: MappingProxyType(dict(sorted(table.items()))) for name, table in self.offers.tables.items()}
        found = MappingProxyType(self.plugins), MappingProxyType(self.owners)
        return Registry(plugins=found[0], owners=found[1], manager=self.manager, misfit=wanted_default, **tables)
