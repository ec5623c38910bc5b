"""Graphs as values: what a document says (GraphSpec), and the same with every port and config value known (SolvedGraph).

Nothing here reads files or plugins: `expand.py` makes a GraphSpec of documents, `checks.py` makes a SolvedGraph of a GraphSpec.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelgraft.kernel.words.errors import Place, Problem
from modelgraft.kernel.words.kinds import Component, Config
from modelgraft.kernel.words.notation import in_yaml
from modelgraft.kernel.words.ports import Port
from modelgraft.kernel.words.source import Source
from modelgraft.kernel.words.wording import for_python

if TYPE_CHECKING:
    from modelgraft.kernel.language.document import Document
    from modelgraft.kernel.language.yaml_reader import Item
    from modelgraft.kernel.shelf.registry import Registry

GRAPH_PREFIX = "graph:"  # `use: graph:eye.yaml` places a whole graph as one node
INPUTS = "inputs"  # the name under which wires address the inputs of the graph


@dataclass(frozen=True, slots=True)
class Ref:
    """The giving end of a wire: an output port of a node, or an input of the graph (`node` is "inputs").

    port  "" stands for the only output of the node, until the checker has found its name
    """

    node: str
    port: str = ""
    place: Place | None = field(default=None, compare=False)

    @property
    def is_input(self) -> bool:
        """Whether it is an input of the graph."""
        return self.node == INPUTS

    def __str__(self) -> str:
        return f"{self.node}.{self.port}" if self.port else self.node


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value comes from, in the order of precedence.

    layer     default | source | base | file | code | set | flag, or `solved` for a dimension that neighbours decide
    note      what a person needs beside the place: "vision.tokens is 1408 wide", "preset:clip-vit-l-14"
    replaced  what the value went over, nearest first
    """

    layer: str
    place: Place | None = None
    note: str = ""
    replaced: tuple[Value, ...] = ()

    @property
    def is_users(self) -> bool:
        """The person at the keyboard gave it (`--set`, a flag, a line of Python): trusted to name files anywhere."""
        return self.is_typed or self.layer == "code"

    @property
    def is_typed(self) -> bool:
        """It came as the letters of a command or an argument: `5` may be meant as a number."""
        return self.layer in ("set", "flag")

    def __str__(self) -> str:
        return for_python(self.unworded)

    @property
    def unworded(self) -> str:
        """The whole as text, with the options of the caller marked: for messages (`modelgraft.kernel.words.wording`)."""
        where = self.place.short if self.place else ""
        named = {"default": "default", "source": "from the source", "solved": "solved"}.get(self.layer, self.layer)
        over = [f"instead of {in_yaml(one.value)}, {one.origin.place.short}" for one in self.replaced if one.origin.place]
        notes = "; ".join(filter(None, (self.note, *over)))
        return " ".join(part for part in (where or named, f"({notes})" if notes else "") if part)


@dataclass(frozen=True, slots=True)
class Value:
    """A value written in a document or given by the user, with its origin.

    home  the file whose folder counts when the value names a file: where the leading param was set, or else the text
    """

    value: Any
    origin: Origin
    home: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Wire:
    """What feeds one input port: one reference, or a list of them for a `list[...]` port."""

    refs: tuple[Ref, ...]
    is_list: bool
    place: Place


@dataclass(frozen=True, slots=True)
class AdapterSpec:
    """A component grafted into a host node, as written."""

    use: Value
    source: Value | None
    config: Mapping[str, Value]
    wires: Mapping[str, Wire]
    place: Place
    folder: Path | None = None  # as in NodeSpec


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """A node as written, after `extends`, subgraphs and `${params}` are applied."""

    name: str
    use: Value
    source: Value | None
    config: Mapping[str, Value]
    wires: Mapping[str, Wire]
    frozen: bool
    when: Ref | None
    lazy: bool
    share: Value | None
    adapters: tuple[AdapterSpec, ...]
    runtime: Mapping[str, Value]
    place: Place
    folder: Path | None = None  # files that the document names are looked for here, and only below here
    switches: Mapping[str, Origin] = field(default_factory=dict)  # where `frozen` and `lazy` were written

    @property
    def needs(self) -> set[str]:
        """The nodes that it waits for, and the one whose weights it uses."""
        return self.feeders | ({str(self.share.value)} if self.share is not None else set())

    @property
    def graph(self) -> str | None:
        """What it places as one node, where that is a whole graph: a file, or the name of a shipped one. Its config is then params."""
        text = self.use.value
        return text.removeprefix(GRAPH_PREFIX).strip() if isinstance(text, str) and text.startswith(GRAPH_PREFIX) else None

    @property
    def references(self) -> tuple[Ref, ...]:
        """Everything that it or an adapter of it is fed by, the route last."""
        wires = (*self.wires.values(), *(wire for adapter in self.adapters for wire in adapter.wires.values()))
        refs = tuple(ref for wire in wires for ref in wire.refs)
        return (*refs, self.when) if self.when is not None else refs

    @property
    def feeders(self) -> set[str]:
        """The nodes that it waits for."""
        return {ref.node for ref in self.references} - {INPUTS}


@dataclass(frozen=True, slots=True)
class GraphInput:
    """An input of the graph: its type, and its default when it has one."""

    name: str
    port: Port
    default: Any = None
    has_default: bool = False
    doc: str = ""
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter of the graph: what `--set name=value` changes; its `home` is that of its value."""

    name: str
    value: Any
    default: Any
    origin: Origin
    doc: str = ""
    place: Place | None = None
    home: str = field(default="", compare=False)
    used: bool = False


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """A graph as its documents say it: read and expanded, not yet wired against the installed components.

    ports      what gives each used output of a graph that stands as a node, by its name outside: "eye.tokens"
    left_over  what nothing uses, as far as the reader can tell: params, and graphs that stand as nodes; the checker tells it with its own
    document   what it was expanded from, with bases and what the user set;  losses  the nodes of `losses`;  training  with params filled in
    """

    name: str
    doc: str
    path: Path | None
    params: Mapping[str, Param]
    inputs: Mapping[str, GraphInput]
    nodes: Mapping[str, NodeSpec]
    outputs: Mapping[str, Ref]
    runtime: Mapping[str, Value]
    registry: Registry = field(compare=False, repr=False)
    allow: frozenset[str] = frozenset()
    ports: Mapping[str, Ref] = field(default_factory=dict)
    left_over: tuple[Problem, ...] = ()
    document: Document | None = field(default=None, compare=False, repr=False)
    losses: frozenset[str] = frozenset()
    training: Item | None = None


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter with its concrete config.

    ports    the input ports that it adds to its host
    origins  where each config value comes from
    """

    component: Component
    config: Config
    source: Source | None
    ports: tuple[str, ...]
    origins: Mapping[str, Origin] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Node:
    """A node whose component, config and ports are known.

    config     concrete: every dimension is a number
    in_ports   the input ports in the order in which the code takes them (the host's, then those of adapters)
    wired      what feeds each wired input port; a port that is left out is optional
    lists      the ports that are fed by a list of wires
    share      the node whose weights this one uses
    origins    where each config value comes from
    parts      of a node that stands for several, which a plan made one (fusing.py); empty otherwise
    remarks    what its source, and those of its adapters, state and it does not heed: warnings
    """

    name: str
    component: Component
    config: Config
    source: Source | None
    in_ports: Mapping[str, Port]
    out_ports: Mapping[str, Port]
    wired: Mapping[str, tuple[Ref, ...]]
    lists: frozenset[str]
    frozen: bool
    when: Ref | None
    lazy: bool
    share: str | None
    adapters: tuple[Adapter, ...]
    runtime: Mapping[str, Any]
    origins: Mapping[str, Origin]
    place: Place
    parts: tuple[Node, ...] = ()
    remarks: tuple[Problem, ...] = ()

    @property
    def references(self) -> tuple[Ref, ...]:
        """Everything that must be there before this node runs, in the order of its ports, the route last."""
        refs = tuple(ref for refs in self.wired.values() for ref in refs)
        return (*refs, self.when) if self.when is not None else refs

    @property
    def feeders(self) -> set[str]:
        """The nodes that it waits for."""
        return {ref.node for ref in self.references} - {INPUTS}

    def opened_sources(self) -> Iterator[tuple[str, Source, int | None]]:
        """The sources whose weights it and its adapters need: the name of the part, the source, and the number of the adapter."""
        if self.component.module is not None and self.source is not None and self.share is None:
            yield self.name, self.source, None
        for index, adapter in enumerate(self.adapters):
            if adapter.source is not None:
                yield f"{self.name}.adapters[{index}]", adapter.source, index


@dataclass(frozen=True, slots=True)
class SolvedGraph:
    """A graph that was checked: it can be planned and opened. Nodes are in the order of their names.

    forecasts  what a run would refuse as things stand here, and its options may change, such as weights that are not there
    """

    graph: GraphSpec
    nodes: Mapping[str, Node]
    inputs: Mapping[str, GraphInput]
    outputs: Mapping[str, Ref]
    forecasts: tuple[Problem, ...] = ()

    @property
    def name(self) -> str:
        """The name of the graph."""
        return self.graph.name

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """What works and not as one may expect, each once; worded for Python."""
        return tuple(remark.for_python() for remark in self.remarks)

    @property
    def remarks(self) -> tuple[Problem, ...]:
        """The warnings as they were noted."""
        return tuple(dict.fromkeys((*self.forecasts, *(remark for node in self.nodes.values() for remark in node.remarks))))

    def port_of(self, ref: Ref) -> Port | None:
        """The port that a reference names; None when the graph has no such port."""
        if ref.is_input:
            given = self.inputs.get(ref.port)
            return given.port if given else None
        node = self.nodes.get(ref.node)
        if node is None:
            return None
        return node.out_ports.get(ref.port) if ref.port else next(iter(node.out_ports.values()), None)
