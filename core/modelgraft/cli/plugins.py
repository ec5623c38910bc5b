"""Commands about what is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelgraft.cli import making
from modelgraft.cli.options import AsJson
from modelgraft.cli.session import Session, session_of
from modelgraft.errors import PluginError, choices, nearest
from modelgraft.kinds import KINDS

if TYPE_CHECKING:
    from modelgraft.kinds import Component
    from modelgraft.registry import Plugin


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("components")(components)
    group = typer.Typer(help="See, add, start and prove plugins.", no_args_is_help=True, rich_markup_mode=None)
    group.command("list")(list_plugins)
    group.command("info")(info)
    making.register(group)
    app.add_typer(group, name="plugins")


def components(
    context: typer.Context,
    kind: Annotated[str | None, typer.Option("--kind", metavar="K", help=f"Only components of this kind: {', '.join(KINDS)}.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the installed components: what `use:` may name."""
    if kind is not None and kind not in KINDS:
        raise typer.BadParameter(f"--kind takes {', '.join(KINDS)}, found '{kind}'. {nearest(kind, KINDS)}".rstrip())
    session = session_of(context)
    found = [one for one in session.registry.components.values() if kind in (None, one.kind)]
    _name_the_broken(session)
    if as_json:
        session.screen.document([component_document(one) for one in found])
    else:
        session.screen.table(
            ("component", "kind", "plugin", "what it does"), [(one.id, one.kind, one.plugin, one.summary) for one in found]
        )


def component_document(one: Component) -> dict[str, Any]:
    """A component as plain values."""
    ports = one.config.declared_ports
    return {
        "id": one.id,
        "kind": one.kind,
        "version": one.version,
        "plugin": one.plugin,
        "about": one.summary,
        "inputs": {name: str(port) for name, port in ports.inputs.items()},
        "outputs": {name: str(port) for name, port in ports.outputs.items()},
        "config": {
            name: {
                "type": _type_name(field.annotation),
                "required": field.is_required(),
                "default": _default(field),
                "about": field.description or "",
            }
            for name, field in one.config.model_fields.items()
        },
        "exportable": one.exportable,
    }


def _type_name(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")


def _default(field: Any) -> Any:
    if field.is_required():
        return None
    value = field.get_default(call_default_factory=True)
    return value if isinstance(value, str | int | float | bool | type(None)) else str(value)


def _name_the_broken(session: Session) -> None:
    for name, plugin in session.registry.quarantined().items():
        session.screen.note(f"plugin {name} is left out: {plugin.error}")


def list_plugins(context: typer.Context, as_json: AsJson = False) -> None:
    """List the installed plugins, also those that cannot be loaded."""
    session = session_of(context)
    found = session.registry.plugins
    if as_json:
        session.screen.document([_plugin_document(plugin) for plugin in found.values()])
        return
    rows = [(name, _where(plugin), str(len(plugin.components)), plugin.error or "ok") for name, plugin in found.items()]
    session.screen.table(("plugin", "package", "components", "state"), rows, right=frozenset({2}))


def _plugin_document(plugin: Plugin) -> dict[str, Any]:
    return {
        "name": plugin.name,
        "module": plugin.module,
        "package": plugin.distribution,
        "version": plugin.version,
        "components": list(plugin.components),
        "error": plugin.error or None,
    }


def _where(plugin: Plugin) -> str:
    return f"{plugin.distribution} {plugin.version}".strip()


def info(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="ID", help="A plugin, or a component as namespace/name.")],
    as_json: AsJson = False,
) -> None:
    """Show a plugin with its components, or a component with its ports and config."""
    session = session_of(context)
    registry = session.registry
    component, plugin = registry.find(name), registry.plugins.get(name)
    if component is not None:
        found = component_document(component)
        session.screen.document(found) if as_json else _say_component(session, found)
    elif plugin is not None:
        session.screen.document(_plugin_document(plugin)) if as_json else _say_plugin(session, plugin)
    else:
        known = [*registry.plugins, *registry.components]
        raise PluginError(
            f"there is no plugin or component '{name}'. {nearest(name, known)} Plugins: {choices(registry.plugins, most=40)}."
        )


def _say_plugin(session: Session, plugin: Plugin) -> None:
    screen = session.screen
    screen.say(f"{screen.paint(plugin.name, 'bold')}  {_where(plugin)}  ({plugin.module})")
    if plugin.error:
        screen.say(f"it is left out: {plugin.error}")
    for id in plugin.components:
        screen.say(f"  {id}  {session.registry.components[id].summary}")


def _say_component(session: Session, found: dict[str, Any]) -> None:
    screen = session.screen
    screen.say(f"{screen.paint(found['id'], 'bold')}  {found['kind']}, version {found['version']}, of the plugin {found['plugin']}")
    screen.say(found["about"])
    for side in ("inputs", "outputs"):
        for name, kind in found[side].items():
            screen.say(f"  {side[:-1]:6} {name}: {kind}")
    for name, field in found["config"].items():
        about = f"  {field['about']}" if field["about"] else ""
        default = "" if field["required"] else f" = {field['default']!r}"
        screen.say(f"  with   {name}: {field['type']}{default}{about}")
    if not found["inputs"] and not found["outputs"]:
        screen.say("its ports depend on the config: see `modelgraft explain GRAPH NODE` of a graph that uses it")
