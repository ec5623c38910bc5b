"""Writes a graph for a checkpoint: the one that the card of its family names, with this checkpoint in its place.

No family is known here. A card names a shipped graph or holds the text of one; a shipped graph that no card names is for
checkpoints whose `model_type` is that of the default of its parameter `checkpoint`. The text is taken over with its prose, the
parts that the checkpoint decides are filled in, and the shapes in its comments are those of this checkpoint.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from modelgraft.kernel.language import expand
from modelgraft.kernel.language.shipped_graphs import find_shipped, shipped_names
from modelgraft.kernel.shelf.registry import Registry
from modelgraft.kernel.words.errors import GraphError, PluginError, Problem, SourceError, choices
from modelgraft.kernel.words.graph import GraphSpec, SolvedGraph
from modelgraft.kernel.words.guard import contained, said, shown
from modelgraft.kernel.words.ports import Tensor
from modelgraft.records.homes import home_read
from modelgraft.sources import views
from modelgraft.sources.cards import Facts
from modelgraft.sources.families import families
from modelgraft.sources.installed_plugins import installed_plugins
from modelgraft.sources.source_view import SourceView
from modelgraft.sources.storage import remember_named
from modelgraft.tools.checked import checked

PARAM = "checkpoint"  # the parameter of a shipped graph that names what it is for
_SHAPE = re.compile(r"#(.*?)\[(batch[^\]]*)\]")  # in a comment


@dataclass(frozen=True, slots=True)
class Edit:
    """Characters of a text to be replaced."""

    start: int
    end: int
    text: str


def import_graph(source: str, *, registry: Registry | None = None, folder: Path | None = None, offline: bool = True) -> str:
    """Write a graph document for a checkpoint.

    source  a folder or a hub id
    folder  where the document will lie: a checkpoint below it is named by a relative path, others by the absolute one
    offline look at files on this machine and at recorded configs alone

    Raises SourceError when the source cannot be looked at or no graph is for its kind, GraphError when the graph
    for it has problems, PluginError when its card names or gives none.
    """
    registry = registry if registry is not None else installed_plugins()
    view = _look(source, registry, offline=offline)
    kind = _kind(view)
    graphs = families().graphs if kind in families().graphs else {**_recognised(registry), **families().graphs}
    graph = graphs.get(kind or "")
    if graph is None:
        known = f"{source} is a checkpoint of the kind '{kind}'" if kind else f"the config of {source} has no model_type"
        raise SourceError(
            Problem("no-graph", f"{known}; there are graphs for: {choices(graphs)}", hint="start from one of `modelgraft graphs`")
        )
    text = _text_of(graph, view, kind or "")
    with tempfile.TemporaryDirectory() as beside:
        path = find_shipped(text) if "\n" not in text else _written(text, Path(beside) / f"{kind}.yaml")
        if path is None:
            raise PluginError(f"the card for '{kind}' names the graph {shown(text)}, which nobody ships; wanted: a shipped name, or a text")
        solved = checked(expand.load_graph(path, params={PARAM: source}, registry=registry), offline=offline)
        return _rewrite(path.read_text(encoding="utf-8"), solved, _reference(view, folder))


def _text_of(graph: str | Callable[[Facts], str], view: SourceView, kind: str) -> str:
    """A name or a text as it stands on a card, or as a function there gives it."""
    if isinstance(graph, str):
        return graph
    try:
        with contained():
            text = graph(view.root)
    except Exception as error:  # a function of a plugin may raise anything
        raise PluginError(f"the card for '{kind}' gives no graph for {view.whole}: {said(error)}") from error
    if not isinstance(text, str):
        raise PluginError(f"the card for '{kind}' gives no graph for {view.whole}: found {shown(text)}; wanted: a text")
    return text


def _written(text: str, path: Path) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def _look(source: str, registry: Registry, *, offline: bool) -> SourceView:
    return views.find(source, registry=registry, folder=None, trusted=True, offline=offline)


def _kind(view: SourceView) -> str | None:
    found = view.root.get("model_type")
    return found if isinstance(found, str) else None


def _recognised(registry: Registry) -> dict[str, str]:
    """Kind of checkpoint -> the shipped graph for it; of several the one that lies least deep, then the first by name."""
    found: dict[str, str] = {}
    for name in sorted(shipped_names(), key=lambda name: (name.count("/"), name)):
        default = _default_of(name, registry)
        if default is None:
            continue
        try:
            kind = _kind(_look(default, registry, offline=True))
        except SourceError:
            continue  # the default is neither on this machine nor recorded
        if kind is not None:
            found.setdefault(kind, name)
    return found


def _default_of(name: str, registry: Registry) -> str | None:
    try:
        graph: GraphSpec = expand.load_graph(name, registry=registry)
    except GraphError:
        return None  # a broken graph of a plugin is reported where it is used
    param = graph.params.get(PARAM)
    return param.value if param is not None and isinstance(param.value, str) else None


def _rewrite(text: str, solved: SolvedGraph, named: str) -> str:
    """The text of a shipped graph, made to be of the source that is named so."""
    root: Any = yaml.compose(text, Loader=yaml.SafeLoader)  # Any: nodes of PyYAML are not typed
    edits = [*_checkpoint(root, named), *_choices(root, solved), *_shapes(text, root, solved)]
    for edit in sorted(edits, key=lambda edit: edit.start, reverse=True):
        text = text[: edit.start] + edit.text + text[edit.end :]
    return text


def _reference(view: SourceView, folder: Path | None) -> str:
    """How the document names the source."""
    if view.ref.kind not in ("folder", "file"):
        return json.dumps(view.whole)
    path = home_read(view.ref.name).resolve()
    remember_named(path)  # the user did, so the document that is written may
    if folder is not None and path.is_relative_to(folder.resolve()):
        return _named(f"./{path.relative_to(folder.resolve()).as_posix()}")
    return _named(str(path))


def _named(path: str) -> str:
    """A path as a document writes it: a `#` of a name is doubled, so that it does not begin a part."""
    return json.dumps(path.replace("#", "##"))


def _entries(mapping: Any) -> dict[str, Any]:
    return {key.value: value for key, value in mapping.value} if isinstance(mapping, yaml.MappingNode) else {}


def _checkpoint(root: Any, named: str) -> Iterator[Edit]:
    written = _entries(_entries(root)["params"])[PARAM]
    value = _entries(written).get("default", written)
    yield Edit(value.start_mark.index, value.end_mark.index, named)


def _choices(root: Any, solved: SolvedGraph) -> Iterator[Edit]:
    """The component that a node became, where the document leaves the choice; the comment about the choice goes with it."""
    for name, node in _entries(_entries(root)["nodes"]).items():
        use = _entries(node).get("use")
        if use is not None and "|" in use.value:
            end = use.end_mark
            rest = end.buffer[end.pointer :].partition("\n")[0] if end.buffer else ""
            comment = len(rest) if rest.lstrip().startswith("#") else 0
            yield Edit(use.start_mark.index, end.index + comment, solved.nodes[name].component.id)


def _shapes(text: str, root: Any, solved: SolvedGraph) -> Iterator[Edit]:
    """The shape of a node's output, wherever a comment on its lines gives one: of the first output with as many axes."""
    lines = text.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    for name, node in _entries(_entries(root)["nodes"]).items():
        shapes = [port.type.axes for port in solved.nodes[name].out_ports.values() if isinstance(port.type, Tensor)]
        end = node.end_mark  # of a node in several lines, where the next one begins
        is_next = end.line < len(lines) and not lines[end.line][: end.column].strip()
        for number in range(node.start_mark.line, min(end.line + (not is_next), len(lines))):
            match = _SHAPE.search(lines[number])
            axes = next((axes for axes in shapes if match is not None and len(axes) == len(match[2].split())), None)
            if match is not None and axes is not None:
                written = " ".join("..." if axis is None else str(axis) for axis in axes)
                yield Edit(starts[number] + match.start(2), starts[number] + match.end(2), written)
