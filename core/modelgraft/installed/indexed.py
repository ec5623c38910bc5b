"""What the installed plugins offer, as it was found before: a plugin is imported when something of it is used.

Importing all plugins takes longer than all else that a light command does, and most of it is of no use to it. So what they offer is kept
by name, with whose it is, and stands for them as long as nothing has changed that it depends on: the folders where distributions
are found with all that lie there, every file that was imported while plugins were loaded, and the folders beside those. A registry that is
made of it answers as one of `discover` does; whoever calls a hook has the plugins loaded that implement it, whoever asks for all components
has all.

A plugin that is broken is never kept. What is kept and cannot be read, or not be written, is as good as nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from importlib.metadata import EntryPoint
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pluggy

from modelgraft.installed import discovery
from modelgraft.installed.offers import OFFER_TABLES, Offers
from modelgraft.kernel.shelf import hooks
from modelgraft.kernel.shelf.registry import Lost, Plugin, Registry
from modelgraft.kernel.words.backends import BackendCard
from modelgraft.kernel.words.errors import PluginError
from modelgraft.records.defaults import wanted_default
from modelgraft.records.publishing import file_aside
from modelgraft.records.shipped import SHIPPED as SHIPPED_RECORDS

FORMAT = 2
MOST = 8  # files that are kept: one for each way in which Python is started
METADATA = (".dist-info", ".egg-info", ".egg-link")
WORDS_ALONE = ("recorded_configs", "weight_readers", "keepers")  # tables whose entries are words


def registry_in(folder: Path, *, keep: bool = True) -> Registry:
    """What the installed plugins offer, by what is kept in a folder; found out anew, and kept if asked, where that is of no use."""
    if not discovery.is_usual():
        return discovery.discover(only=None)
    file = folder / f"{hashlib.sha256(repr((sys.prefix, sys.version, sys.path)).encode()).hexdigest()[:16]}.json"
    facts = _read(file)
    if facts is not None:
        return _Kept(facts, file).registry()
    before = _distributions()
    found = discovery.discover()
    if keep and not found.quarantined():
        with contextlib.suppress(OSError):
            _write(file, {"format": FORMAT, "distributions": before, **_depends(found), **_facts(found)})
    return found


# -- what it depends on -----------------------------------------------------------------------------------------------------


def _distributions() -> str:
    """A digest of all distributions that are installed, by name and time of their metadata."""
    found: list[tuple[str, int | None, int | None]] = []
    for place in sys.path:
        try:
            with os.scandir(place or ".") as entries:
                found += [(one.path, one.stat().st_mtime_ns, _time(f"{one.path}/entry_points.txt")) for one in entries if _is_metadata(one)]
        except NotADirectoryError:
            found.append((place, _time(place), None))  # an archive
        except OSError:
            continue
    return hashlib.sha256(repr(sorted(found, key=repr)).encode()).hexdigest()


def _is_metadata(entry: os.DirEntry[str]) -> bool:
    return entry.name.endswith(METADATA)


def _time(path: str) -> int | None:
    try:
        return os.stat(path).st_mtime_ns  # noqa: PTH116 some thousand of them, at every start
    except OSError:
        return None


def _depends(registry: Registry) -> dict[str, Any]:
    """The files that were imported until now, and the folders beside those of plugins and of what they recorded, with their times."""
    own = tuple({f"{plugin.module.partition(':')[0].partition('.')[0]}." for plugin in registry.plugins.values()})
    files, folders = imported_files(), dict[str, int | None]()
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and f"{name}.".startswith(own):
            folders[os.path.dirname(file)] = _time(os.path.dirname(file))  # noqa: PTH120 as above
    for folder in registry.recorded_configs.values():
        folders[str(folder.parent)] = _time(str(folder.parent))
    return {"files": files, "folders": folders}


def imported_files() -> dict[str, int | None]:
    """The files of all modules that were imported until now, but those of Python itself, with their times."""
    own = sys.stdlib_module_names
    modules = [module for name, module in list(sys.modules.items()) if name.partition(".")[0] not in own]
    files = (getattr(module, "__file__", None) for module in modules)
    return {file: _time(file) for file in files if isinstance(file, str)}


def are_as_they_were(stamps: Mapping[str, int | None]) -> bool:
    """Whether files and folders have the times that they had."""
    return all(_time(path) == time for path, time in stamps.items())


def file_of(registry: Registry) -> Path | None:
    """Where it is kept what a registry was made of; None for one that was found out."""
    return registry.manager.kept.file if isinstance(registry.manager, _Manager) else None


def _is_as_it_was(facts: Mapping[str, Any]) -> bool:
    stamps = {**facts["files"], **facts["folders"]}
    return facts["format"] == FORMAT and are_as_they_were(stamps) and facts["distributions"] == _distributions()


# -- the file ----------------------------------------------------------------------------------------------------------------


def _read(file: Path) -> Mapping[str, Any] | None:
    """What is kept, if it is whole and nothing that it depends on has changed."""
    try:
        text, _, sum_ = file.read_text(encoding="utf-8").rpartition("\n")
        if hashlib.sha256(text.encode()).hexdigest() != sum_:
            return None
        facts: Mapping[str, Any] = json.loads(text)
        return facts if _is_as_it_was(facts) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _write(file: Path, facts: Mapping[str, Any]) -> None:
    text = json.dumps(facts)
    with file_aside(file) as aside:
        aside.write_text(f"{text}\n{hashlib.sha256(text.encode()).hexdigest()}", encoding="utf-8")
    kept = sorted(file.parent.glob("[!.]*.json"), key=lambda one: one.stat().st_mtime_ns)
    for old in kept[:-MOST]:
        for one in old.parent.glob(f"{old.stem}.*"):  # and what was made of it
            one.unlink(missing_ok=True)


def _facts(registry: Registry) -> dict[str, Any]:
    """What plugins offer, as JSON holds it."""
    callers = {name: caller for name, caller in vars(registry.manager.hook).items() if hasattr(hooks, name)}
    named = {name: {registry.manager.get_name(one.plugin) for one in caller.get_hookimpls()} for name, caller in callers.items()}
    implemented = {name: [plugin for plugin in registry.plugins if plugin in found] for name, found in named.items() if found}
    return {
        "plugins": [{**asdict(plugin), "place": None} for plugin in registry.plugins.values()],
        "owners": [[what, name, owner] for (what, name), owner in registry.owners.items()],
        "hooks": implemented,
        "backends": {name: asdict(card) for name, card in registry.backends.items()},
        **{table: {name: str(entry) for name, entry in getattr(registry, table).items()} for table in WORDS_ALONE},
    }


# -- a registry that is made of it ---------------------------------------------------------------------------------------------


class _Table(Mapping[str, Any]):
    """A table of a registry, whose entries are asked of the plugins that have them. `Any`: what the table holds."""

    def __init__(self, names: Mapping[str, str], entry: Callable[[str, str], Any]) -> None:
        """names: the owner of each;  entry: gives one by owner and name."""
        self.names, self.entry, self.known = dict(sorted(names.items())), entry, dict[str, Any]()

    def __getitem__(self, name: str) -> Any:
        if name not in self.known:
            self.known[name] = self.entry(self.names[name], name)
        return self.known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self.names


class _Kept:
    """What is kept, and the plugins of it that were loaded."""

    def __init__(self, facts: Mapping[str, Any], file: Path) -> None:
        self.facts, self.file = facts, file
        self.plugins = {one["name"]: _plugin(one) for one in facts["plugins"]}
        self.owners: dict[tuple[str, str], str] = {(what, name): owner for what, name, owner in facts["owners"]}
        self.offers: dict[str, Offers] = {}

    def registry(self) -> Registry:
        """A registry, and the cards of families for who asks for them."""
        discovery.KNOWN.rest = self._tell_families
        facts = self.facts
        plain: dict[str, Mapping[str, Any]] = {table: MappingProxyType(facts[table]) for table in WORDS_ALONE}
        plain["recorded_configs"] = MappingProxyType({name: Path(folder) for name, folder in facts["recorded_configs"].items()})
        backends = {name: BackendCard(**{key: _frozen(value) for key, value in card.items()}) for name, card in facts["backends"].items()}
        return Registry(
            plugins=MappingProxyType(self.plugins),
            owners=MappingProxyType(self.owners),
            components=self._table("component"),
            record_types=self._table("record type"),
            families=self._table("family"),
            backends=MappingProxyType(backends),
            manager=_Manager(facts["hooks"], self),  # type: ignore[arg-type]  # it does all that is asked of one here
            misfit=wanted_default,
            **plain,
        )

    @cached_property
    def whole(self) -> Registry:
        """All plugins, loaded."""
        return discovery.discover()

    def _table(self, what: str) -> _Table:
        table = OFFER_TABLES[what]
        names = {name: owner for (kind, name), owner in self.owners.items() if kind == what}
        if what == "record type":  # of the core's own words only those are types that it has readers for
            names = {name: owner for name, owner in names.items() if owner != discovery.OWN or name in SHIPPED_RECORDS}

        def entry(owner: str, name: str) -> Any:
            if owner == discovery.OWN:
                return SHIPPED_RECORDS[name]
            return getattr(self.offered(owner), table)[name]

        return _Table(names, entry)

    def offered(self, plugin: str) -> Offers:
        """What a plugin offers, loaded now. Raises PluginError where it fails although nothing of it has changed."""
        if plugin not in self.offers:
            one = self.plugins[plugin]
            found = discovery.load_one(_point(one), one)
            if isinstance(found, Plugin):
                self.file.unlink(missing_ok=True)
                raise PluginError(f"the plugin '{plugin}' could be loaded before, and cannot now: {found.trouble}; run the command again")
            self.offers[plugin] = found
        return self.offers[plugin]

    def implementing(self, plugins: Sequence[str]) -> pluggy.PluginManager:
        """A manager of some plugins alone, loaded now. Raises PluginError as `offered` does."""
        manager = pluggy.PluginManager("modelgraft")
        manager.add_hookspecs(hooks)
        for name in plugins:
            self.offered(name)  # which has found it in order
            manager.register(_point(self.plugins[name]).load(), name=name)
        return manager

    def _tell_families(self) -> None:
        """Load the plugins that have cards of families."""
        for (what, name), owner in self.owners.items():
            if what == "family":
                discovery.KNOWN.cards.setdefault(name, self.offered(owner).families[name])


def _point(plugin: Plugin) -> EntryPoint:
    return EntryPoint(plugin.name, plugin.module, discovery.GROUP)


def _plugin(facts: Mapping[str, Any]) -> Plugin:
    lost = tuple(Lost(**one) for one in facts["lost"])
    return Plugin(**{**facts, "components": tuple(facts["components"]), "lost": lost})


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class _Manager:
    """In the place of pluggy's: of a hook it knows the plugins that implement it, and loads these; asked for anything else it loads all."""

    def __init__(self, implemented: Mapping[str, Sequence[str]], kept: _Kept) -> None:
        """implemented: the plugins that implement a hook, in order; a hook that is not there nobody does."""
        self.implemented, self.kept, self.hook = implemented, kept, _Hooks(self)
        self.managers = dict[str, pluggy.PluginManager]()  # by hook

    def of_hook(self, name: str) -> pluggy.PluginManager:
        """The manager that a hook is called by: of all plugins where these are loaded anyhow, or somebody has added more."""
        if "whole" in vars(self.kept) or not hasattr(hooks, name):
            return self.kept.whole.manager
        if name not in self.managers:
            self.managers[name] = self.kept.implementing(self.implemented.get(name, ()))
        return self.managers[name]

    def subset_hook_caller(self, name: str, remove_plugins: Iterable[object]) -> pluggy.HookCaller:
        return self.of_hook(name).subset_hook_caller(name, remove_plugins)

    def get_name(self, plugin: object) -> str | None:
        known = (manager.get_name(plugin) for manager in self.managers.values())
        return next(filter(None, known), None) or self.kept.whole.manager.get_name(plugin)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.kept.whole.manager, name)


class _Hooks:
    def __init__(self, manager: _Manager) -> None:
        self.manager = manager

    def __getattr__(self, name: str) -> Any:
        return getattr(self.manager.of_hook(name).hook, name)
