"""Commands that plugins bring: each plugin adds to an app of its own, what it may add is taken from there, and runs guarded."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import typer
from typer.models import CommandInfo, TyperInfo

from modelgraft.cli.app import LATER
from modelgraft.cli.session import CliSession
from modelgraft.installed.discovery import OWN
from modelgraft.kernel.shelf.registry import Lost, Registry
from modelgraft.kernel.words.errors import ModelgraftError, PluginError
from modelgraft.kernel.words.guard import Escaped, contained, place_of, said

Info = CommandInfo | TyperInfo


@dataclass(frozen=True, slots=True)
class Extensions:
    """What plugins add to the command line.

    commands  name -> the plugin and what typer knows of the command;  lost  by plugin: names that another has
    errors    by plugin: what its hook raised
    """

    commands: Mapping[str, tuple[str, Info]]
    lost: Mapping[str, tuple[Lost, ...]]
    errors: Mapping[str, str]


def add_commands(app: typer.Typer, session: CliSession) -> None:
    """Add the commands of the installed plugins, and say which are left out."""
    found = commands_of(session.registry, taken=names_of(app))
    for _, info in found.commands.values():
        if isinstance(info, CommandInfo):
            app.registered_commands.append(info)
        else:
            app.registered_groups.append(info)
    for plugin, lost in found.lost.items():
        for one in lost:
            session.screen.note(f"plugin {plugin} does not have the {one}")
    for plugin, error in found.errors.items():
        session.screen.note(f"plugin {plugin} adds no commands: {error}")


def names_of(app: typer.Typer) -> frozenset[str]:
    """The commands and groups of an app."""
    return frozenset({_name(info) for info in _infos(app)} | LATER.keys())


def commands_of(registry: Registry, *, taken: frozenset[str]) -> Extensions:
    """What plugins add, the first in precedence first. Of a name the first keeps it.

    taken  the names of modelgraft's own commands
    """
    commands: dict[str, tuple[str, Info]] = {}
    lost: dict[str, list[Lost]] = {}
    errors: dict[str, str] = {}
    there = _with_commands(registry)
    for plugin, subject in there:
        own = typer.Typer()
        others = [other for _, other in there if other is not subject]
        try:
            with contained():
                registry.manager.subset_hook_caller("register_commands", others)(app=own)
                listed = [(_name(info), _guarded(info, plugin)) for info in _infos(own)]
        except Exception as error:  # noqa: BLE001 a plugin may raise anything while it registers
            place = place_of(error, registry.plugins[plugin].module if plugin in registry.plugins else "")
            errors[plugin] = said(error) + (f" ({place})" if place is not None else "")
            continue
        if own.registered_callback is not None:
            lost.setdefault(plugin, []).append(Lost("options", "of the whole command line", OWN))
        for name, info in listed:
            owner = OWN if name in taken else commands[name][0] if name in commands else ""
            if owner:
                lost.setdefault(plugin, []).append(Lost("command", name, owner))
            else:
                commands[name] = (plugin, info)
    return Extensions(MappingProxyType(commands), {plugin: tuple(names) for plugin, names in lost.items()}, errors)


def _with_commands(registry: Registry) -> list[tuple[str, Any]]:
    """The plugins that implement the hook, in the order of precedence."""
    found = {registry.manager.get_name(one.plugin): one.plugin for one in registry.manager.hook.register_commands.get_hookimpls()}
    return [(name, found[name]) for name in registry.plugins if name in found]


def _infos(app: typer.Typer) -> list[Info]:
    return [*app.registered_commands, *app.registered_groups]


def _name(info: Info) -> str:
    if isinstance(info.name, str):
        return info.name
    if isinstance(info, TyperInfo):
        inner = info.typer_instance.info.name if info.typer_instance is not None else None
        return inner if isinstance(inner, str) else ""
    return getattr(info.callback, "__name__", "").lower().replace("_", "-")


def _guarded(info: Info, plugin: str) -> Info:
    """The same, with every function that the command line may call in there guarded."""
    if isinstance(info, CommandInfo):
        if info.callback is not None:
            info.callback = _guard(info.callback, plugin, _name(info))
        return info
    inner = info.typer_instance
    if inner is not None:
        if inner.registered_callback is not None and inner.registered_callback.callback is not None:
            inner.registered_callback.callback = _guard(inner.registered_callback.callback, plugin, _name(info))
        inner.registered_commands = [_guarded(one, plugin) for one in inner.registered_commands]  # type: ignore[misc]
        inner.registered_groups = [_guarded(one, plugin) for one in inner.registered_groups]  # type: ignore[misc]
    return info


def _guard(call: Callable[..., Any], plugin: str, name: str) -> Callable[..., Any]:
    """A command of a plugin: what it raises names the plugin. It says an exit code by `typer.Exit`, as ours do."""

    @functools.wraps(call)  # typer reads the options from its signature
    def run(*arguments: Any, **options: Any) -> Any:
        try:
            with contained():
                return call(*arguments, **options)
        except (ModelgraftError, typer.Exit, typer.Abort):
            raise
        except Escaped as error:
            hint = "a command says its exit code by `raise typer.Exit(code)`"
            raise PluginError(f"plugin '{plugin}': the command '{name}' tried to end the process: {error}\n    {hint}") from error
        except Exception as error:
            if _is_usage(error):
                raise
            place = place_of(error, getattr(call, "__module__", ""))
            at = f"\n    see {place}" if place is not None else ""
            raise PluginError(f"plugin '{plugin}': the command '{name}' failed: {said(error)}{at}") from error

    return run


def _is_usage(error: Exception) -> bool:
    """An error in the use of a command, such as typer.BadParameter, which the command line says by itself."""
    return any(base.__name__ == "ClickException" for base in type(error).__mro__)
