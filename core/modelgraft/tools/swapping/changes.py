"""What stands in a node, changed for something else: dotted keys, as `--set` has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelgraft.kernel.language import expand
from modelgraft.kernel.words.errors import GraphError, InputError
from modelgraft.kernel.words.graph import GRAPH_PREFIX, GraphSpec, NodeSpec, Ref, SolvedGraph
from modelgraft.kernel.words.guard import contained
from modelgraft.kernel.words.kinds import Component, Config, checked_ports
from modelgraft.kernel.words.source import Source
from modelgraft.sources import parts, views
from modelgraft.sources.source_view import SourceView
from modelgraft.tools.checked import checked
from modelgraft.tools.swapping.names import components_of

ENCODER = "encoder"


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to be set of a graph.

    spec      the graph as it was read
    settings  dotted keys and values, as `load` takes them;  nodes  what was put into which node
    sources   the new source by node, where it is one that was found, at its part;  notes  what else was done, in sentences
    solved    the graph as it was, None where it could not be checked
    """

    spec: GraphSpec
    nodes: Mapping[str, Any]
    solved: SolvedGraph | None
    settings: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, SourceView] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def changes_of(swaps: Mapping[str, Any], spec: GraphSpec) -> Changes:
    """What putting each value into its node changes there. Raises InputError for what is no text, GraphError for a graph that is none."""
    found = Changes(spec, swaps, _solved(spec))
    for node, value in swaps.items():
        text = str(value) if value is not None else ""
        if not text or isinstance(value, (bool, list, dict, Mapping)):
            raise InputError(f"{node} is set to {value!r}; wanted: a source such as preset:NAME, a component, or graph:NAME")
        if text.startswith(GRAPH_PREFIX):
            _put_graph(found, node, text, spec)
        elif (component := spec.registry.find(text)) is not None:
            _put_component(found, node, component, spec)
        else:
            _put_source(found, node, text, spec)
    return found


def _solved(spec: GraphSpec) -> SolvedGraph | None:
    try:
        return checked(spec)
    except GraphError:
        return None


# -- a source -----------------------------------------------------------------------------------------------------------


def _put_source(found: Changes, node: str, text: str, spec: GraphSpec) -> None:
    """Another source: at the part that the component is made for, or with the component of this kind that is made for it."""
    old = spec.nodes.get(node)
    if old is None:
        raise InputError(f"{node} is a graph, which has no source: set it to a component or to another graph ({GRAPH_PREFIX}NAME)")
    found.settings[f"nodes.{node}.from"] = text
    try:
        view = views.find(text, registry=spec.registry, folder=None, trusted=True, offline=True)
    except GraphError:
        return  # the checker tells it, at its place
    own = components_of(spec, node)
    made_for = next(_made_for(own, view, _part_of(old)), None)
    if made_for is None:
        others = _made_for(_others(own, spec), view, _part_of(old))
        made_for = next((one for one in others if _fits(*one, old, spec)), None)
    if made_for is None:
        return  # the checker says why it is not made for it
    component, at = made_for
    found.sources[node] = at
    found.settings[f"nodes.{node}.from"] = f"{at.whole}#{at.part}" if at.part else at.whole
    if component not in own:
        found.settings[f"nodes.{node}.use"] = component.id
        found.notes.append(f"{node} is {component.id}, which {text} is made for, in place of {own[0].id}")


def _others(own: Sequence[Component], spec: GraphSpec) -> list[Component]:
    """Components of the same kind."""
    kinds = {component.kind for component in own}
    return [component for component in spec.registry.components.values() if component.kind in kinds and component not in own]


def _part_of(old: NodeSpec) -> str:
    return str(old.source.value).rpartition("#")[2] if old.source is not None and "#" in str(old.source.value) else ""


def _fits(component: Component, source: SourceView, old: NodeSpec, spec: GraphSpec) -> bool:
    """Whether a component has the ports that are wired, by name."""
    config = config_from(component, source, {key: value.value for key, value in old.config.items()})
    read = {text.partition(".")[2] for _, text in _wires_out_of(old.name, spec)} - {""}
    try:
        with contained():
            ports = checked_ports(config.ports()) if config is not None else None
    except Exception:  # noqa: BLE001 ports are code of a plugin, which may raise anything
        return False
    return ports is not None and set(old.wires) <= set(ports.inputs) and read <= set(ports.outputs)


def _made_for(components: Sequence[Component], view: SourceView, part: str) -> Iterator[tuple[Component, SourceView]]:
    """The components that read the source, each at the part that it reads: the one that is named, the one it had, any."""
    for component in components:
        if component.config.from_source.__func__ is not Config.from_source.__func__:  # type: ignore[attr-defined]
            found = next((at for at in _at_parts(view, part, component.kind) if config_from(component, at) is not None), None)
            if found is not None:
                yield component, found


def _at_parts(view: SourceView, part: str, kind: str) -> Iterator[SourceView]:
    there = parts.part_names(view.root, tuple(view.keys))
    bare = {str(view.root.get("model_type"))} & set(there) if kind == ENCODER else set()  # without the head that was trained on it
    names = [view.part] if view.part else dict.fromkeys([*({part} & set(there)), *bare, "", *there, part])
    for name in names:
        try:
            yield view.at(name) if name != view.part else view
        except GraphError:
            continue


def config_from(component: Component, source: Source, more: Mapping[str, Any] | None = None) -> Config | None:
    """What a component makes of a source, None where it is none for it."""
    try:
        with contained():
            return component.config.model_validate({**component.config.from_source(source), **(more or {})})
    except Exception:  # noqa: BLE001 a component says by any error that a source is not for it
        return None


# -- a component, a graph -----------------------------------------------------------------------------------------------


def _put_component(found: Changes, node: str, component: Component, spec: GraphSpec) -> None:
    """Another component without a source: of what was set, it keeps what it knows."""
    old = spec.nodes.get(node)
    kept = {key: value.value for key, value in old.config.items() if key in component.config.model_fields} if old is not None else {}
    _clear(found, node, spec)
    found.settings[f"nodes.{node}.use"] = component.id
    found.settings.update({f"nodes.{node}.with.{key}": value for key, value in kept.items()})
    try:
        with contained():
            ports = checked_ports(component.config.model_validate(kept).ports())
    except Exception:  # noqa: BLE001 the checker tells what is wrong with it
        return
    _rewire(found, node, [name for name, port in ports.inputs.items() if not port.optional], list(ports.outputs), list(ports.inputs), spec)


def _put_graph(found: Changes, node: str, text: str, spec: GraphSpec) -> None:
    """A whole graph in place of the node. Raises GraphError where there is none of that name, or it has problems."""
    inner = expand.load_graph(text.removeprefix(GRAPH_PREFIX).strip(), registry=spec.registry)
    _clear(found, node, spec)
    found.settings[f"nodes.{node}.use"] = text
    needed = [name for name, given in inner.inputs.items() if not given.has_default]
    _rewire(found, node, needed, list(inner.outputs), list(inner.inputs), spec)


def _clear(found: Changes, node: str, spec: GraphSpec) -> None:
    """Take out what belongs to what stood there."""
    written = spec.document.root.value["nodes"].value[node].value if spec.document is not None else {}
    for key in ("from", "with", "share", "adapters"):
        if key in written:
            found.settings[f"nodes.{node}.{key}"] = None


def _rewire(found: Changes, node: str, needed: Sequence[str], given: Sequence[str], known: Sequence[str], spec: GraphSpec) -> None:
    """Wires by other names: what fed the only port of the old feeds the only one of the new, and so behind it."""
    wires = _wires_into(node, spec)
    if not set(wires) <= set(known) and len(needed) == len(wires) == 1:
        first = next(iter(wires.values()))
        found.settings[f"nodes.{node}.in"] = None
        found.settings[f"nodes.{node}.in.{needed[0]}"] = first
    if len(given) != 1:
        return
    for key, text in _wires_out_of(node, spec):
        port = text.removeprefix(node).removeprefix(".")
        if port and port not in given:
            found.settings[key] = f"{node}.{given[0]}"


def _wires_into(node: str, spec: GraphSpec) -> dict[str, Any]:  # Any: a text, or a list of them
    written = spec.document.root.value["nodes"].value[node].plain() if spec.document is not None else {}
    found = written.get("in") if isinstance(written, dict) else None
    return found if isinstance(found, dict) else {}


def _wires_out_of(node: str, spec: GraphSpec) -> Iterator[tuple[str, str]]:
    """The key of each wire that leaves a node, and its text."""
    for name, form in spec.nodes.items():
        for port, wire in form.wires.items():
            if not wire.is_list and wire.refs[0].node == node:
                yield f"nodes.{name}.in.{port}", _text_of(wire.refs[0])
    for name, ref in spec.outputs.items():
        if ref.node == node:
            yield f"outputs.{name}", _text_of(ref)


def _text_of(ref: Ref) -> str:
    return f"{ref.node}.{ref.port}" if ref.port else ref.node
