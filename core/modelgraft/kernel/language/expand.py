"""From a file to a GraphSpec: `extends`, what the user sets, `${params}` and graphs as nodes are applied here.

What goes over what: component default < `from` < the base of `extends` < the file < `--set` < flags. Files that a
document names lie in its own folder or below; what the user gives may lie anywhere.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelgraft.kernel.language import document
from modelgraft.kernel.language.document import SECTIONS, Document, described
from modelgraft.kernel.language.interpolate import read_params, unused_params, user_place
from modelgraft.kernel.language.overlay import given, overlay, override, without_dotted_keys
from modelgraft.kernel.language.sections import Sections
from modelgraft.kernel.language.shipped_graphs import find_shipped, shipped_graphs, shipped_names
from modelgraft.kernel.language.subgraphs import Inlining
from modelgraft.kernel.language.yaml_reader import Item
from modelgraft.kernel.words.errors import Collector, DocumentError, GraphError, Place, Problem, choices, nearest
from modelgraft.kernel.words.graph import GraphSpec, NodeSpec, Origin, Value
from modelgraft.kernel.words.wording import option

if TYPE_CHECKING:
    from modelgraft.kernel.shelf.registry import Registry

MOST_FILES_DEEP = 32  # graphs within graphs, and bases of bases
MOST_NODES = 100_000  # graphs that place graphs twice grow exponentially
GRAPH_ENDINGS = (".yaml", ".yml")


def load_graph(
    path_or_name: str | Path,
    *,
    registry: Registry,
    params: Mapping[str, Any] | None = None,
    allow: Collection[str] = (),
    overrides: Mapping[str, Any] | None = None,
) -> GraphSpec:
    """Read and expand a graph.

    path_or_name  a file, or the name of a shipped graph such as `blip2`
    params        what the user sets: params of the graph, and values by their dotted key (`nodes.llm.with.seed`)
    allow         "unused" lets params stand that nothing uses
    overrides     flags: dotted keys that go over everything else

    Raises GraphError with every problem of the phase: DocumentError when a file cannot be read.
    """
    return expand_document(_open(path_or_name), registry=registry, params=params, allow=allow, overrides=overrides)


def expand_document(
    found: Document,
    *,
    registry: Registry,
    params: Mapping[str, Any] | None = None,
    allow: Collection[str] = (),
    overrides: Mapping[str, Any] | None = None,
    problems: Sequence[Problem] = (),
) -> GraphSpec:
    """Expand a document that was read already, or written in Python; see `load_graph`.

    problems  what is known to be wrong with it already; raised with the others
    """
    expansion = Expansion(registry, frozenset(allow), Collector(list(problems)))
    values, changes = _split_settings(params or {}, overrides or {})
    graph = expansion.graph(found, values, changes, chain=())
    expansion.collector.finish()
    assert graph is not None, "a graph without problems was built"
    return graph


def _without_base(root: Item) -> Item:
    """The document once its base is part of it."""
    return root._replace(value={key: item for key, item in root.value.items() if key != "extends"})


def _split_settings(params: Mapping[str, Any], overrides: Mapping[str, Any]) -> tuple[dict[str, Value], list[tuple[str, Item]]]:
    """Tell params from dotted keys."""
    values = {
        name: Value(value, Origin("set", user_place(name)))
        for name, value in params.items()
        if name.partition(".")[0] not in SECTIONS or "." not in name
    }
    changes = [(name, given(name, value, layer="set")) for name, value in params.items() if name not in values]
    changes += [(name, given(name, value, layer="flag")) for name, value in overrides.items()]
    return values, changes


def _open(path_or_name: str | Path) -> Document:
    text = str(path_or_name)
    if isinstance(path_or_name, Path) or text.endswith(GRAPH_ENDINGS):
        return document.read(Path(path_or_name))
    path = find_shipped(text)
    if path is None and not _exists(text):
        hint = f"{_near_shipped(text)} A file of your own is named with its .yaml ending."
        raise DocumentError(Problem("no-such-graph", f"'{text}' is neither a file nor a shipped graph", hint=hint))
    return document.read(path or Path(text))


def _near_shipped(name: str) -> str:
    """Which shipped graph may have been meant, and which there are."""
    names = shipped_names()
    return f"{nearest(name, names)} Shipped graphs: {choices(names, most=40)}.".lstrip()


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):
        return False


@dataclass(slots=True)
class Expansion:
    """One expansion: the files that were read, and the problems that were found.

    folders  by file as messages name it: the folder that its nodes may name files in, None for shipped graphs
    """

    registry: Registry
    allow: frozenset[str]
    collector: Collector
    files: dict[tuple[Path, str], Document] = field(default_factory=dict)
    folders: dict[str, Path | None] = field(default_factory=dict)
    placed: dict[tuple[Any, ...], GraphSpec | None] = field(default_factory=dict)  # a graph placed twice alike is expanded once
    nodes_made: int = 0

    def graph(
        self, found: Document, values: Mapping[str, Value], changes: list[tuple[str, Item]], *, chain: tuple[Path, ...]
    ) -> GraphSpec | None:
        """Expand one document and the graphs inside it; None when problems leave nothing to go on with."""
        self._know(found)
        before = len(self.collector.problems)
        root = _without_base(override(self._with_bases(found, ()), changes, self.collector))
        if len(self.collector.problems) > before:
            return None  # what would be said about the rest depends on what did not come over
        file = found.root.place.file
        title = f"the graph {found.path.stem}"
        scope = read_params(root.value.get("params"), values, self.collector, title=title)
        sections = Sections(self.collector, scope, self.registry, self.folders)
        sections.top_level(root)
        inputs = sections.inputs(root.value.get("inputs"))
        written, losses = (sections.entries(root.value.get(part), part) for part in ("nodes", "losses"))
        for twin in written.keys() & losses.keys():
            self.collector.add("bad-name", f"the loss {twin} has the name of a node", place=losses[twin].at, hint="give it another name")
        read = [sections.node(name, item) for name, item in (*written.items(), *losses.items())]
        outputs = sections.outputs(root.value.get("outputs"))
        runtime, single = sections.runtime(root.value.get("runtime"))
        name = sections.text(root.value.get("name"), "name")
        nodes = {node.name: node for node in read if node is not None and node.graph is None}
        self._count(len(nodes), root.place)
        graphs = [node for node in read if node is not None and node.graph is not None]
        placed = self._placed(graphs, (*chain, found.path.resolve()), found.inner)
        self._place_single(single, nodes, placed)
        if len(self.collector.problems) > before:
            return None  # what seems left over may be what a wrong name was meant to be
        asks = "unused" not in self.allow and not changes and not found.is_changed  # what the user changes may be what named a param
        idle = unused_params(scope, root.value.get("params")) if asks else []
        inlining = Inlining(nodes, inputs, placed, outputs, runtime, self.allow, self.collector)
        every = inlining.inline()
        led = {port: inlining.output(ref, f"outputs.{port}") for port, ref in outputs.items()}
        used = {key: replace(param, used=key in scope.used) for key, param in scope.params.items()}
        return GraphSpec(
            name=name.value if name else Path(file).stem,
            doc=found.doc,
            path=None if found.is_code else found.path,
            params=used,
            inputs={**inputs, **inlining.lifted},
            nodes=every,
            outputs={port: ref for port, ref in led.items() if ref is not None},
            runtime=runtime,
            registry=self.registry,
            allow=self.allow,
            ports={} if len(self.collector.problems) > before else inlining.ports(),
            left_over=tuple(dict.fromkeys([*idle, *inlining.left_over])),  # once for a graph that is placed twice
            document=replace(found, root=root, folders=dict(self.folders), is_changed=found.is_changed or bool(changes)),
            losses=frozenset(losses) & every.keys(),
            training=sections.filled(root.value["training"]) if "training" in root.value else None,
        )

    def _count(self, nodes: int, place: Place) -> None:
        self.nodes_made += nodes
        if self.nodes_made > MOST_NODES:
            found = f"the graph grows beyond {MOST_NODES:,} nodes"
            raise GraphError(
                [*self.collector.problems, Problem("too-large", found, place, "look for graphs that place each other many times")]
            )

    # -- files -------------------------------------------------------------------------------------------------------

    def _know(self, found: Document) -> None:
        self.folders.update(found.folders)
        if found.is_code:
            return  # what stands in Python is the user's own: it may name files anywhere
        folder = found.path.parent.resolve()
        is_shipped = folder.is_relative_to(shipped_graphs().resolve())
        self.folders[found.root.place.file] = None if is_shipped else folder

    def _read(self, text: str, origin: Origin, home: str, *, layer: str, what: str) -> Document | None:
        """Read a document that another one names: a file in its folder, or a shipped graph."""
        path = self._locate(text, origin, home, what)
        if path is None:
            return None
        key = (path, layer)
        if key not in self.files:
            try:
                self.files[key] = document.read(path, layer=layer)
            except DocumentError as error:
                self.collector.problems += [p if p.place else replace(p, place=origin.place) for p in error.noted]
                return None
            self._know(self.files[key])
        return self.files[key]

    def _locate(self, text: str, origin: Origin, home: str, what: str) -> Path | None:
        if not text.endswith(GRAPH_ENDINGS):
            if (path := find_shipped(text)) is None:
                hint = f"{_near_shipped(text)} A file is named with its .yaml ending."
                self.collector.add("no-such-graph", f"{what}: there is no shipped graph '{text}'", place=origin.place, hint=hint)
            return path
        if origin.is_users:
            return Path(text)
        folder = Path(home).parent
        try:
            inside = not Path(text).is_absolute() and (folder / text).resolve().is_relative_to(folder.resolve())
        except (OSError, ValueError, RuntimeError):  # a name that no file system takes, or a loop of links
            inside = False
        if not inside:
            found = f"{what} names {text}, which lies outside the folder of {Path(home).name}"
            hint = f"copy the file next to the graph, or give its path by {option('set', 'NAME=PATH')}"
            self.collector.add("outside-folder", found, place=origin.place, hint=hint)
            return None
        return folder / text

    # -- extends -----------------------------------------------------------------------------------------------------

    def _with_bases(self, found: Document, chain: tuple[Path, ...]) -> Item:
        """The document with everything it extends below it, and its dotted keys applied."""
        nested, dotted = without_dotted_keys(found.root)
        item = found.root.value.get("extends")
        if item is not None:
            base = self._base(item, (*chain, found.path.resolve()))
            if base is None:
                return nested  # dotted keys change what the base holds, which nobody knows
            nested = overlay(base, nested, self.collector)
        return override(nested, dotted, self.collector)

    def _base(self, item: Item, chain: tuple[Path, ...]) -> Item | None:
        if not isinstance(item.value, str) or not item.value:
            found = f"extends is {described(item.value)}; wanted a file or the name of a shipped graph"
            self.collector.add("wrong-type", found, place=item.at)
            return None
        base = self._read(item.value, Origin(item.layer, item.at), item.at.file, layer="base", what="extends")
        if base is None or self._repeats(base, chain, item.at, "extends-cycle", "extends"):
            return None
        return self._with_bases(base, chain)

    def _repeats(self, found: Document, chain: tuple[Path, ...], place: Place | None, code: str, verb: str) -> bool:
        path = found.path.resolve()
        if path in chain:
            names = [step.name for step in (*chain[chain.index(path) :], path)]
            self.collector.add(code, f"a graph {verb} itself: {' -> '.join(names)}", place=place, hint="take one of these steps out")
            return True
        if len(chain) >= MOST_FILES_DEEP:
            self.collector.add("too-deep", f"more than {MOST_FILES_DEEP} files in a row: {chain[0].name} ... {path.name}", place=place)
            return True
        return False

    # -- graphs as nodes ---------------------------------------------------------------------------------------------

    def _placed(
        self, specs: list[NodeSpec], chain: tuple[Path, ...], at_hand: Mapping[str, Document]
    ) -> dict[str, tuple[NodeSpec, GraphSpec]]:
        placed: dict[str, tuple[NodeSpec, GraphSpec]] = {}
        for spec in specs:
            named, use = spec.graph or "", spec.use
            inner = at_hand.get(named) or self._read(named, use.origin, use.home, layer="file", what=f"{spec.name}.use")
            if inner is None or self._repeats(inner, chain, spec.place, "recursive-graph", "contains"):
                continue
            graph = self._inner(inner, spec, chain)
            if graph is not None:
                placed[spec.name] = (spec, graph)
                self._count(len(graph.nodes), spec.place)
        return placed

    def _inner(self, inner: Document, spec: NodeSpec, chain: tuple[Path, ...]) -> GraphSpec | None:
        key = (inner.path, *((name, repr(value)) for name, value in sorted(spec.config.items())))
        if key not in self.placed:
            self.placed[key] = self.graph(inner, spec.config, [], chain=chain)
        return self.placed[key]

    def _place_single(
        self, single: dict[str, dict[str, Value]], nodes: dict[str, NodeSpec], placed: dict[str, tuple[NodeSpec, GraphSpec]]
    ) -> None:
        """Hand the `runtime: {device: {llm: cuda}}` of the graph to its nodes; what a node says itself goes over it."""
        for name, values in single.items():
            if name in nodes:
                nodes[name] = replace(nodes[name], runtime={**values, **nodes[name].runtime})
            elif name in placed:
                spec, graph = placed[name]
                placed[name] = (replace(spec, runtime={**values, **spec.runtime}), graph)
            else:
                key, value = next(iter(values.items()))
                names = ["default", *nodes, *placed]
                found = f"runtime.{key} names the node '{name}', but there is none; there are: {choices(names)}"
                self.collector.add("unknown-node", found, place=value.origin.place, hint=nearest(name, names))
