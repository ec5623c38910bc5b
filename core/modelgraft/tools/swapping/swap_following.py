"""What follows where something else stands in a node: what prepares for it, how it is used, and what was trained to join it to others.

- A preprocess that feeds it, and had the source that it had, takes the new one.
- Fields of its config that are marked with KEPT say how the graph uses it, such as the layer that is taken: they stay.
- Connectors beside it (projectors, resamplers), and adapters that are grafted into it or into what stands beside, keep their weights
  where these still fit. Where they do not, they begin anew, built as they were, with the widths of their new neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from modelgraft.kernel.words.errors import GraphError
from modelgraft.kernel.words.graph import GraphSpec, Node, Origin, SolvedGraph
from modelgraft.kernel.words.kinds import Config, dimension_fields
from modelgraft.sources.source_view import SourceView
from modelgraft.tools.checked import checked
from modelgraft.tools.swapping.changes import Changes, config_from
from modelgraft.tools.swapping.names import components_of
from modelgraft.tools.swapping.use_marks import kept_fields

CONNECTORS = ("projector", "resampler")
PREPARES = "preprocess"
ADAPTERS = ".adapters"  # behind the name of a node: what is grafted into it
MOST_TRIED = 4  # connectors of which every set is tried: 16 checks of a graph take less than a second
Dotted = dict[str, Any]  # Any: as `load` takes params


def follow(found: Changes, spec: GraphSpec, read: Callable[[Dotted], GraphSpec]) -> tuple[Dotted, list[str]]:
    """All that is to be set, and what of it the user did not say.

    read  reads the graph with settings, and raises GraphError with what is wrong
    """
    settings, notes = dict(found.settings), list[str]()
    for node, source in found.sources.items():
        for key, value, note in (*_prepared(node, source, spec), *_used(node, source, found, spec)):
            settings[key] = value
            notes.append(note)
    beside = list(dict.fromkeys(name for node in found.nodes for name in _connectors(node, spec) if name not in found.nodes))
    released = _released(beside, settings, found, read)
    beside = [name for name in beside if {f"nodes.{name}.from", f"nodes.{name}"} & released.keys()]
    if beside:
        notes.append(f"{', '.join(beside)} begin{'s' * (len(beside) == 1)} anew: the weights that were there do not fit its neighbours")
    return {**released, **settings}, notes


def _released(beside: Sequence[str], settings: Dotted, found: Changes, read: Callable[[Dotted], GraphSpec]) -> Dotted:
    """Let go of the weights of as few as will do, the nearest first; where none will, of those that leave the fewest problems."""
    best: tuple[int, Dotted] | None = None
    for names in _subsets(beside):
        released: Dotted = {}
        for name in names:
            released |= _anew(name, found)
        try:
            after = checked(read({**released, **settings}))
        except GraphError as error:
            if best is None or len(error.noted) < best[0]:
                best = len(error.noted), released
            continue
        for name in beside:  # of published numbers there are no shapes that could contradict
            if name not in names and _widths(name, after) != _widths(name, found.solved):
                released |= _anew(name, found)
        return released
    return best[1] if best is not None else {}


def _subsets(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """None of them, each, each two, ...; of many only the nearest are tried in all ways."""
    few = names[:MOST_TRIED]
    for count in range(len(few) + 1):
        yield from combinations(few, count)
    if len(names) > len(few):
        yield tuple(names)


def _widths(name: str, solved: SolvedGraph | None) -> list[Any]:
    """The widths of a connector, or of the adapters of a node."""
    node = solved.nodes.get(name.removesuffix(ADAPTERS)) if solved is not None else None
    if node is None:
        return []
    configs = [adapter.config for adapter in node.adapters] if name.endswith(ADAPTERS) else [node.config]
    return [[getattr(config, width) for width in dimension_fields(type(config))] for config in configs]


def _prepared(node: str, source: SourceView, spec: GraphSpec) -> Iterator[tuple[str, Any, str]]:
    """What prepares for the node, from the new source."""
    old = _whole(spec, node)
    for feeder in sorted(spec.nodes[node].feeders):
        component = next(iter(components_of(spec, feeder)), None)
        if component is None or component.kind != PREPARES or not old or _whole(spec, feeder) != old:
            continue
        if config_from(component, source.at("")) is None:
            continue
        yield f"nodes.{feeder}.from", source.whole, f"{feeder} prepares as {source.whole} says"


def _whole(spec: GraphSpec, node: str) -> str:
    form = spec.nodes.get(node)
    return str(form.source.value).partition("#")[0] if form is not None and form.source is not None else ""


def _used(node: str, source: SourceView, found: Changes, spec: GraphSpec) -> Iterator[tuple[str, Any, str]]:
    """How the graph uses the node, where the new source says it otherwise."""
    before = found.solved.nodes.get(node) if found.solved is not None else None
    if before is None or f"nodes.{node}.use" in found.settings:
        return
    own = components_of(spec, node)
    component = next((one for one in own if one.id == before.component.id), None)
    config = config_from(component, source) if component is not None else None
    if component is None or config is None:
        return
    kept: Dotted = {}
    for name in kept_fields(component.config):
        value = getattr(before.config, name)
        if name in spec.nodes[node].config or value == getattr(config, name):
            continue
        if config_from(component, source, {**kept, name: value}) is not None:
            kept[name] = value
            yield f"nodes.{node}.with.{name}", value, f"{node} is used as before: {name} is {value}"


def _connectors(node: str, spec: GraphSpec) -> Iterator[str]:
    """What with weights from elsewhere stands beside a node, or beside such, the nearest first: connectors, and adapters of nodes."""
    yield from _grafted(node, spec)
    seen, edge = {node}, [node]
    while edge:
        near = sorted({other for at in edge for other in _beside(at, spec)} - seen)
        edge = [name for name in near if any(component.kind in CONNECTORS for component in components_of(spec, name))]
        seen |= set(near)
        yield from (name for name in edge if spec.nodes[name].source is not None)
        yield from (graft for name in near for graft in _grafted(name, spec))


def _grafted(node: str, spec: GraphSpec) -> Iterator[str]:
    form = spec.nodes.get(node)
    if form is not None and any(adapter.source is not None for adapter in form.adapters):
        yield f"{node}{ADAPTERS}"


def _beside(node: str, spec: GraphSpec) -> set[str]:
    behind = {name for name, form in spec.nodes.items() if node in form.feeders}
    return behind | (spec.nodes[node].feeders if node in spec.nodes else set())


def _anew(name: str, found: Changes) -> Dotted:
    """A node without its source, built as it was; widths are left to its neighbours, and what was derived of them too."""
    before = found.solved.nodes.get(name.removesuffix(ADAPTERS)) if found.solved is not None else None
    if name.endswith(ADAPTERS):
        return {f"nodes.{name}": _grafts_anew(name.removesuffix(ADAPTERS), before, found)}
    built = _built(before.config, before.origins) if before is not None else {}
    return {f"nodes.{name}.from": None, **{f"nodes.{name}.with.{key}": value for key, value in built.items()}}


def _grafts_anew(node: str, before: Node | None, found: Changes) -> list[Any]:  # Any: adapters as a document has them
    """The adapters of a node without their sources."""
    document = found.spec.document
    written = document.root.value["nodes"].value[node].plain()["adapters"] if document is not None else []
    grafted = before.adapters if before is not None else (None,) * len(written)
    forms = []
    for form, adapter in zip(written, grafted, strict=True):
        built = _built(adapter.config, adapter.origins) if adapter is not None and adapter.source is not None else {}
        forms.append({**{key: value for key, value in form.items() if key != "from"}, "with": {**built, **form.get("with", {})}})
    return forms


def _built(config: Config, origins: Mapping[str, Origin]) -> Mapping[str, Any]:
    """What the source said of how it is built."""
    fields, widths = type(config).model_fields, dimension_fields(type(config))
    sizes = {getattr(config, name) for name in widths}
    found = {name: getattr(config, name) for name, origin in origins.items() if origin.layer == "source" and name not in widths}
    return {name: value for name, value in found.items() if not (fields[name].default is None and value in sizes) and _is_plain(value)}


def _is_plain(value: Any) -> bool:
    return isinstance(value, (str, int, float, bool))
