"""The suites that the installed plugins offer. One that breaks is left out and named; a name that is taken stays with who has it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import InputError, choices, contained, nearest, said
from modelgraft_plugins.evaluating.suites import Suite

if TYPE_CHECKING:
    from modelgraft.commands import CliSession

HOOK = "register_suites"
_NAME = re.compile(r"^[a-z][a-z0-9_-]*$")
_TARGET = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")


@dataclass(frozen=True, slots=True)
class Offer:
    """A suite by its name: who offers it, and where its class lies."""

    name: str
    plugin: str
    target: str

    def load(self) -> type[Suite]:
        """Import its class. Raises InputError for one that is not there, or is no suite."""
        module, _, name = self.target.partition(":")
        try:
            with contained():
                found = getattr(import_module(module), name)
        except Exception as error:
            raise InputError(f"the suite '{self.name}' of the plugin {self.plugin} cannot be loaded: {said(error)}") from error
        if not (isinstance(found, type) and issubclass(found, Suite)):
            raise InputError(f"the suite '{self.name}' of the plugin {self.plugin}: {self.target} is no subclass of Suite")
        return found


@dataclass(frozen=True, slots=True)
class Offered:
    """The suites by name, and what was left out, in sentences."""

    offers: Mapping[str, Offer]
    left_out: tuple[str, ...]

    def named(self, name: str) -> Offer:
        """The suite of a name. Raises InputError with the suites that there are."""
        if name not in self.offers:
            raise InputError(f"there is no suite '{name}'; there are: {choices(self.offers)}. {nearest(name, self.offers)}".strip())
        return self.offers[name]


def offered(session: CliSession) -> Offered:
    """Ask every plugin, the first in precedence first."""
    registry = session.registry
    manager = registry.manager
    found: dict[str, Offer] = {}
    left_out: list[str] = []
    caller = getattr(manager.hook, HOOK, None)
    there = {manager.get_name(one.plugin): one.plugin for one in caller.get_hookimpls()} if caller is not None else {}
    for plugin in (name for name in registry.plugins if name in there):
        others = [other for other in there.values() if other is not there[plugin]]
        mine = _Mine(plugin, found, left_out)
        try:
            with contained():
                manager.subset_hook_caller(HOOK, others)(register=mine.add)
        except Exception as error:  # noqa: BLE001 a plugin may raise anything while it registers
            left_out.append(f"plugin {plugin} offers no more suites: {said(error)}")
    return Offered(found, tuple(left_out))


@dataclass(frozen=True, slots=True)
class _Mine:
    """What one plugin offers."""

    plugin: str
    found: dict[str, Offer]
    left_out: list[str] = field(default_factory=list)

    def add(self, name: Any, target: Any) -> None:  # Any: whatever a plugin hands in
        """Take a suite, unless its name is none or taken."""
        if not (isinstance(name, str) and _NAME.match(name) and isinstance(target, str) and _TARGET.match(target)):
            self.left_out.append(
                f"plugin {self.plugin} offers the suite {name!r} at {target!r}; wanted: a word in lower case, and package.module:Class"
            )
        elif name in self.found:
            self.left_out.append(f"plugin {self.plugin} does not have the suite {name} (it belongs to {self.found[name].plugin})")
        else:
            self.found[name] = Offer(name, self.plugin, target)
