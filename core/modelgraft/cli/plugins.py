"""Commands about what is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelgraft.cli import making
from modelgraft.cli.components import component_document, say_component
from modelgraft.cli.options import AsJson
from modelgraft.cli.session import CliSession, session_of
from modelgraft.kernel.words.errors import PluginError, choices, nearest

if TYPE_CHECKING:
    from modelgraft.cli.extensions import Extensions
    from modelgraft.kernel.shelf.registry import Plugin

OFFERS = ("record type", "recorded config", "weight reader", "backend", "kept kind")  # beside components and commands


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    group = typer.Typer(help="See, add, start and prove plugins.", no_args_is_help=True, rich_markup_mode=None)
    group.command("list")(list_plugins)
    group.command("info")(info)
    making.register(group)
    app.add_typer(group, name="plugins")


def list_plugins(context: typer.Context, as_json: AsJson = False) -> None:
    """List the installed plugins, also those that cannot be loaded, and the names that each has lost to another."""
    session = session_of(context)
    found, extensions = session.registry.plugins, _extensions(session)
    if as_json:
        session.screen.document([_plugin_document(session, plugin, extensions) for plugin in found.values()])
        return
    rows = [(name, _where(plugin), str(len(plugin.components)), _state(plugin, extensions)) for name, plugin in found.items()]
    session.screen.table(("plugin", "package", "components", "state"), rows, right=frozenset({2}))


def _extensions(session: CliSession) -> Extensions:
    """The commands of plugins. Asking for them is light, as any hook that registers."""
    from modelgraft.cli.app import build_app
    from modelgraft.cli.extensions import commands_of, names_of

    with session.screen.only_answers():
        return commands_of(session.registry, taken=names_of(build_app()))


def _state(plugin: Plugin, extensions: Extensions) -> str:
    """In a table: ok, what is wrong, or what is missing."""
    lost = [*plugin.lost, *extensions.lost.get(plugin.name, ())]
    failed = [f"adds no commands: {extensions.errors[plugin.name]}"] if plugin.name in extensions.errors else []
    return plugin.trouble or "; ".join([*failed, *(f"without the {one}" for one in lost)]) or "ok"


def _plugin_document(session: CliSession, plugin: Plugin, extensions: Extensions) -> dict[str, Any]:
    place, lost = plugin.place, [*plugin.lost, *extensions.lost.get(plugin.name, ())]
    owned = session.registry.owners.items()
    return {
        "name": plugin.name,
        "module": plugin.module,
        "package": plugin.distribution,
        "version": plugin.version,
        "components": list(plugin.components),
        **{
            f"{what}s".replace(" ", "_"): sorted(name for (kind, name), owner in owned if (kind, owner) == (what, plugin.name))
            for what in OFFERS
        },
        "commands": [name for name, (owner, _) in extensions.commands.items() if owner == plugin.name],
        "error": plugin.error or extensions.errors.get(plugin.name),
        "file": place.file if place is not None else None,
        "line": place.line if place is not None else None,
        "lost": [{"what": one.what, "name": one.name, "owner": one.owner} for one in lost],
    }


def _where(plugin: Plugin) -> str:
    return f"{plugin.distribution} {plugin.version}".strip()


def info(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="ID", help="A plugin, a package, or a component as namespace/name.")],
    as_json: AsJson = False,
) -> None:
    """Show a component with its ports and config, a plugin with what it brings, or all plugins of a package."""
    session = session_of(context)
    registry = session.registry
    component = registry.find(name)
    of_name = [plugin for plugin in registry.plugins.values() if plugin.name == name]
    plugins = of_name or [plugin for plugin in registry.plugins.values() if plugin.distribution == name]
    if component is not None:
        from modelgraft.tools.looks import look

        found = component_document(component, look(component, registry), registry)
        session.screen.document(found) if as_json else say_component(session, found)
    elif plugins:
        documents = [_plugin_document(session, plugin, _extensions(session)) for plugin in plugins]
        if as_json:
            package = {"package": name, "version": plugins[0].version, "plugins": documents}
            session.screen.document(documents[0] if of_name else package)
        else:
            for document, plugin in zip(documents, plugins, strict=True):
                _say_plugin(session, document, plugin)
    else:
        packages = {plugin.distribution for plugin in registry.plugins.values()} - {""}
        known = [*registry.plugins, *registry.components, *packages]
        hint = f" {near}" if (near := nearest(name, known)) else ""
        raise PluginError(f"there is no plugin, package or component '{name}'.{hint} Plugins: {choices(registry.plugins, most=40)}.")


def _say_plugin(session: CliSession, found: dict[str, Any], plugin: Plugin) -> None:
    screen = session.screen
    screen.say(f"{screen.paint(plugin.name, 'bold')}  {_where(plugin)}  ({plugin.module})")
    if found["error"]:
        screen.say(f"  {'it is left out' if plugin.error else 'it adds no commands'}: {plugin.trouble or found['error']}")
    for lost in found["lost"]:
        screen.say(f"  it does not have the {lost['what']} {lost['name']}, which belongs to {lost['owner']}")
    for id in plugin.components:
        screen.say(f"  {id}  {session.registry.components[id].summary}")
    for what in (*OFFERS, "command"):
        names = found[f"{what}s".replace(" ", "_")]
        if names:
            screen.say(f"  {what}{'s' * (len(names) > 1)}: {choices(names)}")
    for name in found["backends"]:
        screen.say(f"  {name} {_backend_in_words(session, name)}")


def _backend_in_words(session: CliSession, name: str) -> str:
    """What a backend says of itself, and what it runs on here."""
    from modelgraft.engine.backend import open_backend

    card = session.registry.backends[name]
    try:
        here = open_backend(session.registry, name).describe()
    except PluginError as error:
        here = str(error)
    facts = [
        *([f"weights in {choices(card.precisions, sort=False)}"] if card.precisions else []),
        *([f"on {choices(card.devices, sort=False)}"] if card.devices else []),
        *(["connected nodes as one call"] if card.fuses else []),
        *(["can be exported"] if card.exports else []),
        *([here] if here else []),
    ]
    return f"runs {', '.join(facts)}" if facts else "says nothing of itself"
