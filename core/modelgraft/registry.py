"""Installed plugins, loaded one by one under a guard, and what they offer.

A plugin that breaks while it loads, or offers something twice, is quarantined: it is named with its error and does not
take part. Nothing fails until a graph needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import Distribution, EntryPoint, entry_points
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pluggy

from modelgraft import hooks
from modelgraft.errors import PluginError, choices, nearest
from modelgraft.kinds import Component
from modelgraft.ports import MODALITIES

GROUP = "modelgraft"  # the entry-point group of plugins


@dataclass(frozen=True, slots=True)
class Plugin:
    """An installed plugin: its entry point, where it comes from, what it offers, and its error if it is quarantined."""

    name: str
    module: str
    distribution: str
    version: str
    components: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class Registry:
    """What the installed plugins offer. Immutable: installing a plugin makes a new registry in a new process."""

    plugins: Mapping[str, Plugin]
    components: Mapping[str, Component]
    port_types: Mapping[str, str]
    recorded_configs: Mapping[str, Path]
    weight_readers: Mapping[str, str]
    backends: Mapping[str, str]
    precisions: Mapping[str, tuple[str, ...]]  # that weights may have on a backend; none: it does not tell
    fusing: frozenset[str]  # the backends that run connected nodes as one call
    manager: pluggy.PluginManager = field(compare=False, repr=False)

    def find(self, id: str) -> Component | None:
        """The component of this id (`namespace/name` or `namespace/name@version`), or None."""
        name, _, version = id.partition("@")
        found = self.components.get(name)
        return found if found is not None and version in ("", str(found.version)) else None

    def backend(self, name: str) -> str:
        """Where the class of a backend lies, as "package.module:Class". Raises PluginError for a name that no plugin offers."""
        if name not in self.backends:
            near = nearest(name, self.backends)
            raise PluginError(f"no plugin offers the backend '{name}'; there is: {choices(self.backends)}. {near}".strip())
        return self.backends[name]

    def quarantined(self) -> dict[str, Plugin]:
        """The plugins that could not be loaded."""
        return {name: plugin for name, plugin in self.plugins.items() if plugin.error}


def discover(*, only: Collection[str] | None = None) -> Registry:
    """Load the installed plugins in the order of their names.

    only  the names of the plugins to load; None loads all, an empty collection none. Raises PluginError for a name
          that is not installed.
    """
    points = {point.name: point for point in sorted(entry_points(group=GROUP), key=lambda p: p.name)}
    if only is not None:
        unknown = sorted(set(only) - set(points))
        if unknown:
            raise PluginError(f"no plugin named {', '.join(unknown)} is installed; there are: {choices(points)}")
        points = {name: point for name, point in points.items() if name in only}
    building = _Building()
    for point in points.values():
        building.load(point)
    return building.finish()


def assemble(modules: Mapping[str, Any]) -> Registry:
    """Make a registry of plugin modules or objects given by name: for tests and notebooks."""
    building = _Building()
    for name in sorted(modules):
        building.add(Plugin(name, getattr(modules[name], "__name__", name), "", ""), modules[name])
    return building.finish()


class _Offers:
    """What one plugin offers; kept apart until all of it is known to be sound."""

    def __init__(self, plugin: str) -> None:
        self.plugin = plugin
        self.components: dict[str, Component] = {}
        self.port_types: dict[str, str] = {}
        self.recorded_configs: dict[str, Path] = {}
        self.weight_readers: dict[str, str] = {}
        self.backends: dict[str, str] = {}
        self.precisions: dict[str, tuple[str, ...]] = {}
        self.fusing: set[str] = set()

    def add_component(self, subject: Any) -> None:
        found = getattr(subject, "__component__", None)
        if not isinstance(found, Component):
            raise PluginError(f"register_components got {subject!r}, which @component does not decorate")
        if found.id in self.components:
            raise PluginError(f"the component '{found.id}' is offered twice")
        self.components[found.id] = replace(found, plugin=self.plugin)

    def keeper(self, table: dict[str, Any], what: str, convert: Callable[[Any], Any] = str) -> Callable[[str, Any], None]:
        def keep(name: str, value: Any) -> None:
            if name in table:
                raise PluginError(f"the {what} '{name}' is offered twice")
            table[name] = convert(value)

        return keep

    def add_backend(self, name: str, target: str, *, fuses: bool = False, precisions: Iterable[str] = ()) -> None:
        self.keeper(self.backends, "backend")(name, target)
        self.precisions[name] = tuple(precisions)
        if fuses:
            self.fusing.add(name)


class _Building:
    """A registry while plugins are being added to it."""

    def __init__(self) -> None:
        self.manager = pluggy.PluginManager("modelgraft")
        self.manager.add_hookspecs(hooks)
        self.plugins: dict[str, Plugin] = {}
        self.tables: dict[str, dict[str, Any]] = {
            "components": {},
            "port_types": dict(MODALITIES),
            "recorded_configs": {},
            "weight_readers": {},
            "backends": {},
            "precisions": {},
        }
        self.fusing: set[str] = set()

    def load(self, point: EntryPoint) -> None:
        distribution: Distribution | None = point.dist
        plugin = Plugin(
            point.name,
            point.value,
            distribution.name if distribution else "",
            distribution.version if distribution else "",
        )
        try:
            module = point.load()
        except Exception as error:  # noqa: BLE001 a plugin may raise anything while it is imported
            self.plugins[point.name] = replace(plugin, error=f"{type(error).__name__}: {error}")
            return
        self.add(plugin, module)

    def add(self, plugin: Plugin, module: Any) -> None:
        try:
            self.manager.register(module, name=plugin.name)
            self.manager.check_pending()
            offers = self._collect(plugin.name, module)
            self._refuse_duplicates(offers)
        except Exception as error:  # noqa: BLE001 a plugin may raise anything while it registers
            if self.manager.has_plugin(plugin.name):
                self.manager.unregister(name=plugin.name)
            self.plugins[plugin.name] = replace(plugin, error=f"{type(error).__name__}: {error}")
            return
        for table in self.tables:
            self.tables[table].update(getattr(offers, table))
        self.fusing |= offers.fusing
        self.plugins[plugin.name] = replace(plugin, components=tuple(sorted(offers.components)))

    def _collect(self, name: str, module: Any) -> _Offers:
        offers = _Offers(name)
        others = [plugin for plugin in self.manager.get_plugins() if plugin is not module]
        hook = self.manager.subset_hook_caller
        hook("register_components", others)(register=offers.add_component)
        hook("register_port_types", others)(register=offers.keeper(offers.port_types, "port type"))
        hook("register_recorded_configs", others)(register=offers.keeper(offers.recorded_configs, "recorded config", Path))
        hook("register_weight_readers", others)(register=offers.keeper(offers.weight_readers, "weight reader"))
        hook("register_backends", others)(register=offers.add_backend)
        return offers

    def _refuse_duplicates(self, offers: _Offers) -> None:
        for table, known in self.tables.items():
            for name in getattr(offers, table):
                if name in known:
                    owner = getattr(known[name], "plugin", "") or "another plugin"
                    raise PluginError(f"'{name}' ({table.replace('_', ' ')}) is already offered by {owner}")

    def finish(self) -> Registry:
        frozen = {name: MappingProxyType(dict(sorted(table.items()))) for name, table in self.tables.items()}
        return Registry(plugins=MappingProxyType(self.plugins), fusing=frozenset(self.fusing), manager=self.manager, **frozen)
