"""Commands about what a graph may name: components with their ports, found by kind or by type, and presets."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

import typer

from modelgraft.cli.options import AsJson
from modelgraft.cli.session import CliSession, session_of
from modelgraft.kernel.words.errors import nearest
from modelgraft.kernel.words.kinds import KINDS
from modelgraft.kernel.words.notation import in_yaml

if TYPE_CHECKING:
    from modelgraft.kernel.shelf.registry import Registry
    from modelgraft.kernel.words.kinds import Component
    from modelgraft.kernel.words.ports import Port
    from modelgraft.tools.looks import Look, Match

BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
Type = Annotated[str | None, typer.Option(metavar="TYPE")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("components")(components)
    app.command("presets")(presets)
    app.command("records")(records)


def components(
    context: typer.Context,
    kind: Annotated[str | None, typer.Option("--kind", metavar="K", help=f"Only components of this kind: {', '.join(KINDS)}.")] = None,
    gives: Annotated[
        str | None, typer.Option("--gives", metavar="TYPE", help="Only those with an output of this type, such as mask.")
    ] = None,
    takes: Annotated[
        str | None, typer.Option("--takes", metavar="TYPE", help="Only those with an input that takes it, such as text.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the installed components: what `use:` may name.

    TYPE is a port type, such as image, list[text] or float[batch tokens width], or a dtype alone for tensors of any shape.
    Ports that only another value of a config key makes are found too, with that value.
    """
    if kind is not None and kind not in KINDS:
        raise typer.BadParameter(f"--kind takes {', '.join(KINDS)}, found '{kind}'. {nearest(kind, KINDS)}".rstrip())
    session = session_of(context)
    if gives is None and takes is None:
        _list_all(session, kind, as_json=as_json)
    else:
        _list_found(session, kind, {"gives": gives, "takes": takes}, as_json=as_json)


def _list_all(session: CliSession, kind: str | None, *, as_json: bool) -> None:
    """The components, of which it was kept what there is to say: no plugin is imported for it again."""

    def told() -> list[list[str]]:
        return [[one.id, one.kind, one.plugin, one.summary] for one in session.registry.components.values()]

    def documents() -> list[dict[str, Any]]:
        from modelgraft.tools.looks import look

        registry = session.registry
        return [component_document(one, look(one, registry), registry) for one in registry.components.values()]

    if as_json:
        found = session.made_once("component_documents", documents, beside=_recorded_at(session.registry))
    else:
        found = session.made_once("components", told)
    name_the_broken(session)
    if as_json:
        session.screen.document([one for one in found if kind in (None, one["kind"])])
    else:
        session.screen.table(("component", "kind", "plugin", "what it does"), [one for one in found if kind in (None, one[1])])


def _recorded_at(registry: Registry) -> list[tuple[str, int]]:
    """When the recorded configs were written, some of which say what ports a component has."""
    files = (file for folder in registry.recorded_configs.values() for file in folder.glob("*.json"))
    return [(str(file), file.stat().st_mtime_ns) for file in sorted(files)]


def _list_found(session: CliSession, kind: str | None, types: Mapping[str, str | None], *, as_json: bool) -> None:
    """The components with ports of some types, by what is to be found: "gives", "takes"."""
    from modelgraft.tools import looks

    registry = session.registry
    wanted = [(name, looks.read_type(text, registry)) for name, text in types.items() if text is not None]
    finders = {"gives": looks.giving, "takes": looks.taking}
    rows: list[tuple[Component, Look, dict[str, list[Match]]]] = []
    for one in registry.components.values():
        if kind in (None, one.kind):
            seen = looks.look(one, registry)
            matches = {name: finders[name](seen, type_) for name, type_ in wanted}
            if all(matches.values()):
                rows.append((one, seen, matches))
    name_the_broken(session)
    if as_json:
        session.screen.document([component_document(one, seen, registry) | _found(matches) for one, seen, matches in rows])
        return
    heads = ("component", "kind", "plugin", *(name for name, _ in wanted), "what it does")
    cells = [(one.id, one.kind, one.plugin, *(_cell(found) for found in matches.values()), one.summary) for one, _, matches in rows]
    session.screen.table(heads, cells)


def _cell(found: list[Match]) -> str:
    """What was found, in a table: what is there under the typical config, else what another value makes."""
    plain = [match for match in found if not match.under]
    return "; ".join(map(str, plain or found))


def _found(matches: Mapping[str, list[Match]]) -> dict[str, Any]:
    return {
        name: [{"port": one.name, "type": str(one.port), "with": one.under or None} for one in found] for name, found in matches.items()
    }


def component_document(one: Component, seen: Look, registry: Registry) -> dict[str, Any]:
    """A component as plain values."""
    plugin = registry.plugins.get(one.plugin)
    return {
        "id": one.id,
        "kind": one.kind,
        "version": one.version,
        "plugin": one.plugin,
        "package": plugin.distribution if plugin is not None else "",
        "also_offered_by": registry.contenders("component", one.id),
        "about": one.summary,
        "inputs": _types(seen.inputs),
        "outputs": _types(seen.outputs),
        "ports_of": seen.basis,
        "ports_error": seen.error or None,
        "ports_change": [
            {"with": {change.key: change.value}, "inputs": _types(change.inputs), "outputs": _types(change.outputs)}
            for change in seen.changes
        ],
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


def _types(ports: Mapping[str, Port | None]) -> dict[str, str | None]:
    return {name: None if port is None else str(port) for name, port in ports.items()}


def _type_name(annotation: Any) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return " | ".join("None" if part is type(None) else _type_name(part) for part in parts)
    if origin is Annotated:
        return " ".join([_type_name(parts[0]), *_bounds(parts[1:])])
    if isinstance(origin, type) and parts:
        return f"{origin.__name__}[{', '.join(map(_type_name, parts))}]"
    if isinstance(annotation, type):
        return annotation.__name__
    return "..." if annotation is Ellipsis else str(annotation).replace("typing.", "")


def _bounds(beside: Iterable[Any]) -> Iterator[str]:
    """What pydantic knows of a number beside its type, such as "> 0"; functions that look at the value are not told."""
    for one in beside:
        yield from _bounds(getattr(one, "metadata", ()))
        yield from (f"{sign} {value}" for name, sign in BOUNDS.items() if (value := getattr(one, name, None)) is not None)


def _default(field: Any) -> Any:
    """The default of a field as JSON has it; what has no form there, or fails, as text."""
    if field.is_required():
        return None
    from modelgraft.tools.explain import default_of

    text = default_of(field)
    try:
        return field.default if isinstance(field.default, str) else json.loads(text)
    except ValueError:
        return text


def say_component(session: CliSession, found: dict[str, Any]) -> None:
    """A component in lines: ports, what changes them, and the config."""
    screen = session.screen
    screen.say(f"{screen.paint(found['id'], 'bold')}  {found['kind']}, version {found['version']}, of the plugin {found['plugin']}")
    for other in found["also_offered_by"]:
        screen.say(f"the plugin {other} offers it too, and does not have it")
    screen.say(found["about"])
    for side in ("inputs", "outputs"):
        for name, kind in found[side].items():
            screen.say(f"  {side[:-1]:6} {name}: {kind}")
    for name, field in found["config"].items():
        about = f"  {field['about']}" if field["about"] else ""
        default = "" if field["required"] else f" = {in_yaml(field['default'])}"
        screen.say(f"  with   {name}: {field['type']}{default}{about}")
    if found["ports_error"]:
        screen.say(f"its ports are not known without a graph: {found['ports_error']}")
    elif not found["ports_of"].startswith("the default"):
        screen.say(f"the ports are those under {found['ports_of']}")
    if found["ports_change"]:
        screen.say("other values make other ports:")
    for change in found["ports_change"]:
        screen.say(f"  {_in_a_line(change)}")


def _in_a_line(change: dict[str, Any]) -> str:
    [(key, value)] = change["with"].items()
    parts = [
        f"no {side[:-1]} {name}" if kind is None else f"{side[:-1]} {name}: {kind}"
        for side in ("inputs", "outputs")
        for name, kind in change[side].items()
    ]
    return f"{key}: {value}  ->  {', '.join(parts)}"


def name_the_broken(session: CliSession) -> None:
    """Note the plugins that are left out, and what others have lost."""
    for name, plugin in session.registry.plugins.items():
        if plugin.error:
            session.screen.note(f"plugin {name} is left out: {plugin.trouble}")
        for lost in plugin.lost:
            session.screen.note(f"plugin {name} does not have the {lost}")


def records(context: typer.Context, as_json: AsJson = False) -> None:
    """List the record types: what an input of a graph may be, and the files that each is read from and written into."""
    from modelgraft.records.record_type import types_of

    session = session_of(context)
    registry = session.registry
    kinds = types_of(registry).values()
    owners = {kind.name: registry.owners.get(("record type", kind.name), "") for kind in kinds}
    name_the_broken(session)
    if as_json:
        session.screen.document([
            {"name": kind.name, "about": kind.meaning, "reads": list(kind.reads), "writes": list(kind.writes), "plugin": owners[kind.name]}
            for kind in kinds
        ])  # fmt: skip
        return
    rows = [(kind.name, kind.meaning, " ".join(kind.reads) or "-", " ".join(kind.writes) or "-") for kind in kinds]
    session.screen.table(("type", "what it is", "read from", "written into"), rows)


def presets(context: typer.Context, as_json: AsJson = False) -> None:
    """List the presets, published sizes without weights: what `from: preset:NAME` may name, and which components read it."""
    from modelgraft.tools.recorded import recorded_presets

    session = session_of(context)
    found = recorded_presets(session.registry)
    if as_json:
        session.screen.document([
            {
                "name": one.source,
                "family": one.family,
                "about": one.about,
                "also": list(one.also),
                "plugin": one.plugin,
                "components": [{"id": use.component, "from": use.source, "parameters": use.parameters} for use in one.uses],
            }
            for one in found
        ])  # fmt: skip
        return
    from modelgraft.records.amounts import short_count

    rows = []
    for one in found:
        uses = [(use.source, use.component, short_count(use.parameters) if use.parameters else "-") for use in one.uses]
        for index, cells in enumerate(uses or [(one.source, "none that is installed", "-")]):
            rows.append((*cells, one.about if not index else ""))
    session.screen.table(("from", "component", "parameters", "what it is"), rows, right=frozenset({2}))
    session.screen.note("with --init random a graph of presets runs on random numbers; to check and plan it needs no weights")
