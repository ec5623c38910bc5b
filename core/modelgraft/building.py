"""Graphs as users hold them: `load` reads one, `Graph()` starts one. Both can be looked at, checked and written on in Python."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelgraft.engine.warning import warn_once
from modelgraft.kernel.language import expand
from modelgraft.kernel.language.document import SECTIONS
from modelgraft.kernel.language.shipped_graphs import find_shipped
from modelgraft.kernel.language.yaml_reader import Item
from modelgraft.kernel.words.errors import InputError
from modelgraft.kernel.words.graph import GRAPH_PREFIX, GraphInput, GraphSpec, NodeSpec, Param, Ref, Value
from modelgraft.kernel.words.ports import Port
from modelgraft.tools.coded import LAYER, Coded, CodedAdapter, Handle, calling_place
from modelgraft.tools.swapping import read_swapped
from modelgraft.tools.yaml_writer import text_of

if TYPE_CHECKING:
    from modelgraft.kernel.shelf.registry import Registry

__all__ = ["Graph"]


class Graph:
    """A graph: what `load` gives, or what is written in Python.

        graph = Graph("caption")
        image = graph.input("image", "image")
        pixels = graph.node("vision/preprocess", source="google/siglip-base-patch16-224", image=image)
        eye = graph.node("vision/encoder", source="google/siglip-base-patch16-224#vision_model", pixels=pixels, frozen=True)
        graph.output("tokens", eye.tokens)

    What is wrong with it is told when it is checked, planned or opened, with the line of Python as its place. Texts may
    hold `${name}` of a param, as in a document; `$${` stands for the two characters themselves. Sources and files are
    looked for from the working folder.

    name      of the graph; that of the script when it is left out
    doc       what it is for, in a sentence
    runtime   placement for all nodes, such as {"device": "cuda:0"}
    registry  what is installed, when it is not what the entry points say
    allow     "unused": let stand what nothing uses
    """

    def __init__(
        self,
        name: str = "",
        *,
        doc: str = "",
        runtime: Mapping[str, Any] | None = None,
        registry: Registry | None = None,
        allow: Collection[str] = (),
    ) -> None:
        place = calling_place()
        self._coded = Coded(place, doc=doc, path=Path(f"{name or Path(place.file).stem}.yaml"))
        if name:
            self._coded.sections["name"] = self._coded.value(name, place, "name")
        if runtime is not None:
            self._coded.sections["runtime"] = self._coded.value(runtime, place, "runtime")
        self._registry, self._allow, self._params = registry, allowed(allow), dict[str, Any]()
        self._spec: GraphSpec | None = None

    @classmethod
    def of(cls, spec: GraphSpec, *, params: Mapping[str, Any] | None = None) -> Graph:
        """A graph that was read; `params` is what the user set of it."""
        found, graph = spec.document, cls(allow=spec.allow, registry=spec.registry)
        assert found is not None, "what was read has a document"
        graph._coded = Coded(
            found.root.place,
            found.doc,
            found.path,
            is_code=found.is_code,
            is_changed=found.is_changed,
            sections={key: item for key, item in found.root.value.items() if key != "modelgraft"},
            inner=dict(found.inner),
            folders=found.folders,
        )
        graph._params = {name: value for name, value in (params or {}).items() if not _is_dotted(name)}
        graph._spec = spec
        return graph

    # -- writing --------------------------------------------------------------------------------------------------------

    def param(self, name: str, default: Any = ..., *, type: str = "", doc: str = "", choices: Sequence[Any] | None = None) -> str:
        """Let the user set something: gives the text `${name}`, for settings and sources.

        default  left out: the user must set it
        """
        place = calling_place()
        form = {"type": type, "doc": doc, "choices": choices}
        given = {key: value for key, value in form.items() if value not in ("", None)}
        if default is not ...:
            given = {"default": default, **given}
        is_plain = list(given) == ["default"] and not isinstance(default, Mapping)
        self._put("params", name, self._coded.value(default if is_plain else given, place, f"the param {name}"))
        return f"${{{name}}}"

    def input(self, name: str, type: str | Port, *, default: Any = ..., doc: str = "") -> Handle:
        """Add an input: a port type such as "image", "text", "list[text]" or "float[batch tokens 768]"."""
        place = calling_place()
        given = {"type": str(type), **({} if default is ... else {"default": default}), **({"doc": doc} if doc else {})}
        self._put("inputs", name, self._coded.value(given if len(given) > 1 else given["type"], place, f"the input {name}"))
        return Handle(self._coded.home, f"inputs.{name}")

    def output(self, name: str, wire: Handle | str) -> None:
        """Add an output: a port, or a node that has only one."""
        self._put("outputs", name, self._coded.wire(wire, calling_place(), f"outputs.{name}"))

    def node(  # noqa: PLR0913 every key of a node in a document
        self,
        use: str = "",
        /,
        *,
        name: str = "",
        source: str | Path | None = None,
        graph: Graph | str | Path | None = None,
        inputs: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        frozen: bool | str = False,
        when: Handle | str | None = None,
        lazy: bool | str = False,
        share: Handle | str | None = None,
        adapters: Sequence[CodedAdapter] = (),
        runtime: Mapping[str, Any] | None = None,
        **values: Any,  # Any: whatever the component's config and ports take; the checker looks at them
    ) -> Handle:
        """Add a node, and give what stands for it: `eye.tokens` is its port, `eye` alone its only output.

        By keyword, what is a port (or a list of ports, or the text "inputs.NAME") is a wire, and everything else a setting.

        use       id of a component
        name      of the node; made of the id when it is left out: `encoder`, `encoder_2`
        source    where config and weights come from, as `from:` in a document
        graph     a whole graph in place of a component: a Graph as it is now, a file, or a shipped name
        inputs, config   wires and settings whose names are taken here, or stand on both sides, such as a prompt
        """
        place = calling_place()
        text = self._place_graph(graph) if graph is not None else use
        name = name or self._coded.free_name(text.removeprefix(GRAPH_PREFIX).partition(" ")[0].rpartition("/")[2].removesuffix(".yaml"))
        if graph is not None and use:
            self._coded.tell("wrong-value", f"{name} is given a component, {use}, and a graph", place, hint="keep one of them", node=name)
        settings = {**self._params_of(graph), **(config or {})}
        keys: dict[str, Any] = {"use": text or None, "from": source, "frozen": frozen or None, "lazy": lazy or None, "runtime": runtime}
        entries = {key: self._coded.value(value, place, f"{name}.{key}") for key, value in keys.items() if value is not None}
        entries |= self._coded.split(values, inputs or {}, settings, place, name)
        wires = {"when": when, "share": share}
        entries |= {key: self._coded.wire(value, place, f"{name}.{key}") for key, value in wires.items() if value is not None}
        if adapters:
            entries["adapters"] = self._coded.adapters(adapters, place, name)
        self._put("nodes", name, Item(entries, place, place, LAYER))
        return Handle(self._coded.home, name)

    def adapter(
        self,
        use: str,
        /,
        *,
        source: str | Path | None = None,
        inputs: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        **values: Any,  # Any: as of a node
    ) -> CodedAdapter:
        """A component to be grafted into a node: `node(..., adapters=[graph.adapter("adapter/lora", rank=8)])`."""
        place = calling_place()
        keys: dict[str, Any] = {"use": use or None, "from": source}
        entries = {key: self._coded.value(value, place, f"{use}.{key}") for key, value in keys.items() if value is not None}
        return CodedAdapter(Item(entries | self._coded.split(values, inputs or {}, config or {}, place, use), place, place, LAYER))

    def _put(self, section: str, name: str, item: Item) -> None:
        self._coded.put(section, name, item)
        self._spec = None

    def _place_graph(self, graph: Graph | str | Path) -> str:
        """What `use` says of a graph that stands as a node; one that is at hand is kept as it is now."""
        if not isinstance(graph, Graph):
            return f"{GRAPH_PREFIX}{graph}"
        coded = graph._coded
        found = coded.document()
        if graph._spec is not None and (shipped := find_shipped(found.path.stem)) is not None and shipped == found.path:
            return f"{GRAPH_PREFIX}{found.path.stem}"
        self._coded.problems += coded.problems
        stem, count = Path(found.path.name).stem, 2
        text = f"./{stem}.yaml"
        while text in self._coded.inner and self._coded.inner[text].root != found.root:
            text, count = f"./{stem}_{count}.yaml", count + 1
        self._coded.inner[text] = found
        return f"{GRAPH_PREFIX}{text}"

    @staticmethod
    def _params_of(graph: Graph | str | Path | None) -> Mapping[str, Any]:
        return graph._params if isinstance(graph, Graph) else {}

    # -- looking --------------------------------------------------------------------------------------------------------

    @property
    def spec(self) -> GraphSpec:
        """The graph as a value that does not change any more. Raises GraphError with everything that is wrong with the text of it."""
        if self._spec is None:
            self._spec = expand.expand_document(
                self._coded.document(),
                registry=self.registry,
                params=self._params,
                allow=self._allow,
                problems=self._coded.problems,
            )
        return self._spec

    def with_params(self, params: Mapping[str, Any]) -> Graph:
        """The same graph with params set, as `load(..., params=...)` does."""

        def read(given: Mapping[str, Any]) -> GraphSpec:
            return expand.expand_document(
                self._coded.document(), registry=self.registry, params=given, allow=self._allow, problems=self._coded.problems
            )

        spec, own, notes = read_swapped(read, {**self._params, **params})
        warn_once(notes, warned=set())
        return Graph.of(spec, params=own)

    @property
    def registry(self) -> Registry:
        """What is installed."""
        if self._registry is None:
            from modelgraft.sources.installed_plugins import installed_plugins

            self._registry = installed_plugins()
        return self._registry

    @property
    def name(self) -> str:
        """The name of the graph."""
        return self.spec.name

    @property
    def doc(self) -> str:
        """What the graph is for."""
        return self._coded.doc

    @property
    def path(self) -> Path | None:
        """The file that it was read from; None when it was written in Python."""
        return None if self._coded.is_code else self._coded.path

    @property
    def params(self) -> Mapping[str, Param]:
        """What a user may set, by name."""
        return self.spec.params

    @property
    def inputs(self) -> Mapping[str, GraphInput]:
        """What a run takes, by name."""
        return self.spec.inputs

    @property
    def nodes(self) -> Mapping[str, NodeSpec]:
        """The nodes as they are written, by name."""
        return self.spec.nodes

    @property
    def outputs(self) -> Mapping[str, Ref]:
        """What a run gives, by name."""
        return self.spec.outputs

    @property
    def runtime(self) -> Mapping[str, Value]:
        """Placement for the whole graph."""
        return self.spec.runtime

    def __eq__(self, other: object) -> bool:
        """Two graphs are equal when they say the same, wherever it stands."""
        if not isinstance(other, Graph):
            return NotImplemented
        return self._said() == other._said()

    __hash__ = None  # type: ignore[assignment]  # it can be written on

    def _said(self) -> tuple[Any, ...]:
        inner = {text: found.root.plain() for text, found in self._coded.inner.items()}
        return self._plain(), self._coded.doc, inner

    def __repr__(self) -> str:
        name = self._coded.sections.get("name")
        title = name.value if name is not None else self._coded.path.stem
        nodes = len(self._coded.names("nodes"))
        ends = " -> ".join(", ".join(self._coded.names(section)) or "nothing" for section in ("inputs", "outputs"))
        return f"<Graph {title}: {nodes} node{'s' * (nodes != 1)}, {ends}>"

    def _repr_html_(self) -> str:
        """The drawing, for notebooks; where the graph has problems, they are told in its place."""
        from modelgraft.kernel.words.errors import GraphError
        from modelgraft.records import markup
        from modelgraft.tools import draw
        from modelgraft.tools.checked import checked

        try:
            drawn = draw.draw_svg(draw.picture(checked(self.spec)))
        except GraphError as error:
            return markup.title(repr(self).strip("<>"), "has problems") + "".join(markup.words(str(problem)) for problem in error.problems)
        return f'<div style="overflow:auto;max-height:80vh">{drawn}</div>'

    # -- as a document --------------------------------------------------------------------------------------------------

    def to_yaml(self) -> str:
        """The graph as a document, with its base and what was set in place.

        A Graph that stands as a node is named as a file beside this one: `save` writes both.
        """
        return text_of(self._plain(), doc=self._coded.doc)

    def save(self, path: str | Path) -> None:
        """Write the document to a file, and beside it the graphs that stand as nodes.

        Raises InputError for a file that cannot be written, or where a graph beside it would replace another one.
        """
        from modelgraft.records.writing import check_writable, file_named, write_value

        target = file_named(path)
        texts = {target: self.to_yaml(), **_beside(target.parent, self._coded.inner)}
        for file, text in texts.items():
            check_writable(file)
            if file != target and file.exists() and file.read_text(encoding="utf-8") != text:
                raise InputError(f"'{file}' is another graph already; save into an empty folder, or rename the graph that stands as a node")
        for file, text in reversed(texts.items()):
            write_value(text, file)

    def _plain(self) -> dict[str, Any]:
        plain: dict[str, Any] = self._coded.document().root.plain()
        for name in self._params:
            value, form = self.spec.params[name].value, plain["params"][name]
            plain["params"][name] = {**form, "default": value} if isinstance(form, dict) else value
        return plain


def _beside(folder: Path, inner: Mapping[str, Any]) -> dict[Path, str]:
    """The documents of inner graphs by the file that they belong into."""
    found: dict[Path, str] = {}
    for text, document in inner.items():
        found[folder / text] = text_of(document.root.plain(), doc=document.doc)
        for file, content in _beside(folder, document.inner).items():
            if found.setdefault(file, content) != content:
                raise InputError(f"two graphs that stand as nodes are both called {file.stem}; give one another name")
    return found


def allowed(allow: Collection[str]) -> tuple[str, ...]:
    """What may stand in a graph nevertheless. Raises InputError for a word that means nothing."""
    if unknown := sorted(set(allow) - {"unused"}):
        raise InputError(f"allow takes 'unused', found {', '.join(map(repr, unknown))}")
    return tuple(allow)


def _is_dotted(name: str) -> bool:
    """Whether what the user sets is a value by its dotted key, not a param."""
    return "." in name and name.partition(".")[0] in SECTIONS
