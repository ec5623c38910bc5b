"""The sections of a document, read into values: nodes, wires, inputs, outputs and runtime. Every problem is collected."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelgraft.kernel.language.document import (
    ADAPTER_KEYS,
    INPUT_KEYS,
    NODE_KEYS,
    NODE_RUNTIME_KEYS,
    RESERVED_NAMES,
    RUNTIME_KEYS,
    SUBGRAPH_KEYS,
    TOP_KEYS,
    described,
)
from modelgraft.kernel.language.interpolate import NAME_HINT, NAME_PATTERN, Scope
from modelgraft.kernel.language.slips import space_hint
from modelgraft.kernel.language.yaml_reader import Item
from modelgraft.kernel.shelf.registry import Registry
from modelgraft.kernel.words.errors import Collector, choices, nearest
from modelgraft.kernel.words.graph import GRAPH_PREFIX, INPUTS, AdapterSpec, GraphInput, NodeSpec, Origin, Ref, Value, Wire
from modelgraft.kernel.words.ports import ListOf, Modality, Port, PortSyntaxError, PortType, port

_WORD = r"[A-Za-z_][A-Za-z0-9_]*"
_REF = re.compile(rf"({_WORD}(?:/{_WORD})*)(?:\.({_WORD}))?")  # eye/encoder.tokens: a port of a node inside the graph that stands as eye


@dataclass(slots=True)
class Sections:
    """Reads the sections of one document."""

    collector: Collector
    scope: Scope
    registry: Registry
    folders: Mapping[str, Path | None]  # by file: the folder whose files its nodes may name, None for a shipped graph
    _folder_notes: dict[str, Path | None] = field(default_factory=dict)

    # -- shared ------------------------------------------------------------------------------------------------------

    def entries(self, item: Item | None, what: str) -> dict[str, Item]:
        """The entries of a mapping; anything else is a problem and gives none."""
        if item is None:
            return {}
        if isinstance(item.value, dict):
            return item.value
        self.wrong_type(item, what, "a mapping", hint=space_hint(item.value) if isinstance(item.value, str) else "")
        return {}

    def wrong_type(self, item: Item, what: str, wanted: str, *, hint: str = "", node: str = "") -> None:
        """Note a value of another type than wanted."""
        self.collector.add("wrong-type", f"{what} is {described(item.value)}; wanted {wanted}", place=item.at, hint=hint, node=node)

    def keys(self, entries: Mapping[str, Item], known: Iterable[str], what: str, *, node: str = "") -> None:
        """Note the keys that are not known."""
        known = tuple(known)
        for key in entries:
            if key not in known:
                found = f"{what} has no key '{key}'; the keys are: {', '.join(known)}"
                self.collector.add("unknown-key", found, place=entries[key].at, hint=nearest(key, known), node=node)

    def name(self, name: str, item: Item, what: str) -> bool:
        """Whether this may be a name; a problem otherwise."""
        if NAME_PATTERN.fullmatch(name) is None:
            self.collector.add("bad-name", f"the {what} '{name}' is no name", place=item.at, hint=NAME_HINT)
        elif name in RESERVED_NAMES.get(what, {}):
            found = f"no {what} may be called '{name}': beside the {what}s, that word stands for {RESERVED_NAMES[what][name]}"
            self.collector.add("bad-name", found, place=item.at, hint="give it another name")
        elif name == INPUTS and what == "node":
            self.collector.add("bad-name", "no node may be called 'inputs': that word addresses the inputs of the graph", place=item.at)
        else:
            return True
        return False

    def text(self, item: Item | None, what: str, *, node: str = "") -> Value | None:
        """A text that is not empty, with its params filled in."""
        if item is None:
            return None
        filled = self.scope.fill(item)
        if isinstance(filled.value, str) and filled.value:
            return filled
        if isinstance(filled.value, str):
            self.wrong_type(item, what, "a text that is not empty", node=node)
        else:
            self.wrong_type(item._replace(value=filled.value), what, "a text", node=node)
        return None

    def flag(self, entries: Mapping[str, Item], key: str, node: str) -> bool:
        """A key of a node that is true or false, and false when it is left out."""
        item = entries.get(key)
        if item is None:
            return False
        value = self.scope.fill(item).value
        if isinstance(value, bool):
            return value
        hint = "write true or false: of the unquoted words, only these are booleans" if isinstance(value, str) else ""
        self.wrong_type(item._replace(value=value), f"{node}.{key}", "true or false", hint=hint, node=node)
        return False

    def ref(self, item: Item, what: str, *, node: str = "") -> Ref | None:
        """A reference to a port: `node.port`, `node`, `graph/node.port` for one inside a graph that stands as a node, or `inputs.name`."""
        filled = self.scope.fill(item)
        match = _REF.fullmatch(filled.value) if isinstance(filled.value, str) else None
        if match is not None and not (match.group(1) == INPUTS and match.group(2) is None):
            return Ref(match.group(1), match.group(2) or "", item.place)
        found = f"{what} is {described(filled.value)}; wanted a port: node.port, node, or inputs.name"
        hint = "name the input: inputs.name" if filled.value == INPUTS else ""
        self.collector.add("bad-reference", found, place=item.at, hint=hint, node=node)
        return None

    # -- nodes -------------------------------------------------------------------------------------------------------

    def node(self, name: str, item: Item) -> NodeSpec | None:
        """Read one node; None when it has a problem that leaves nothing to work with."""
        if not self.name(name, item, "node"):
            return None
        if not isinstance(item.value, dict):
            slip = space_hint(item.value) if isinstance(item.value, str) else ""
            hint = slip or (f"write {{use: {item.value}}}" if isinstance(item.value, str) and "/" in item.value else "")
            self.wrong_type(item, f"the node {name}", "a mapping with `use`", hint=hint, node=name)
            return None
        entries: Mapping[str, Item] = item.value
        use = self._use(name, entries, item)
        if use is not None and use.value.startswith(GRAPH_PREFIX):
            entries = self._keys_of_graph(name, entries)
        self.keys(entries, NODE_KEYS, f"the node {name}", node=name)
        source = self.text(entries.get("from"), f"{name}.from", node=name)
        spec = NodeSpec(
            name=name,
            use=use or Value("", Origin(item.layer, item.at)),
            source=source,
            config=self.config(entries.get("with"), name),
            wires=self.wires(entries.get("in"), name),
            frozen=self.flag(entries, "frozen", name),
            when=self.ref(entries["when"], f"{name}.when", node=name) if "when" in entries else None,
            lazy=self.flag(entries, "lazy", name),
            share=self.text(entries.get("share"), f"{name}.share", node=name),
            adapters=self._adapters(entries.get("adapters"), name),
            runtime=self.node_runtime(entries.get("runtime"), name),
            place=item.at,
            folder=self.folders.get(source.home if source else item.at.file),
            switches={key: self.scope.fill(entries[key]).origin for key in ("frozen", "lazy") if key in entries},
        )
        return spec if use is not None else None

    def _use(self, name: str, entries: Mapping[str, Item], item: Item) -> Value | None:
        if "use" not in entries:
            hint = nearest("use", entries)
            hint = f"add `use: namespace/name` (see `modelgraft components`){'. ' + hint if hint else ''}"
            self.collector.add("missing-key", f"{name} does not say which component it uses", place=item.at, hint=hint, node=name)
            self.keys(entries, NODE_KEYS, f"the node {name}", node=name)
            return None
        return self.text(entries["use"], f"{name}.use", node=name)

    def _keys_of_graph(self, name: str, entries: Mapping[str, Item]) -> Mapping[str, Item]:
        """The entries of a node that places a whole graph, without those that it cannot have."""
        for key in entries:
            if key in NODE_KEYS and key not in SUBGRAPH_KEYS:
                found = f"{name} places a whole graph, and `{key}` belongs to a single component"
                hint = "set it on the node inside that graph, or through a param of it"
                self.collector.add("unknown-key", found, place=entries[key].at, hint=hint, node=name)
        self.keys({k: v for k, v in entries.items() if k not in NODE_KEYS}, sorted(SUBGRAPH_KEYS), f"the node {name}", node=name)
        return {key: item for key, item in entries.items() if key in SUBGRAPH_KEYS}

    def config(self, item: Item | None, node: str) -> dict[str, Value]:
        """The `with` of a node."""
        return {key: self.scope.fill(part) for key, part in self.entries(item, f"{node}.with").items()}

    def wires(self, item: Item | None, node: str) -> dict[str, Wire]:
        """The `in` of a node."""
        read: dict[str, Wire] = {}
        if item is not None and not isinstance(item.value, dict):
            hint = (space_hint(item.value) or f"name the port: {{port: {item.value}}}") if isinstance(item.value, str) else ""
            self.wrong_type(item, f"{node}.in", "a mapping of ports to references", hint=hint, node=node)
            return read
        for port_name, entry in self.entries(item, f"{node}.in").items():
            is_list = isinstance(entry.value, list)
            parts = entry.value if is_list else [entry]
            refs = [self.ref(part, f"{node}.in.{port_name}", node=node) for part in parts]
            if is_list and not refs:
                self.wrong_type(entry, f"{node}.in.{port_name}", "at least one reference in the list", node=node)
            known = tuple(ref for ref in refs if ref is not None)
            if known:
                read[port_name] = Wire(known, is_list, entry.at)
        return read

    def _adapters(self, item: Item | None, node: str) -> tuple[AdapterSpec, ...]:
        if item is None:
            return ()
        if not isinstance(item.value, list):
            self.wrong_type(item, f"{node}.adapters", "a list of mappings with `use`", node=node)
            return ()
        return tuple(spec for index, part in enumerate(item.value) if (spec := self._adapter(part, node, index)) is not None)

    def _adapter(self, item: Item, node: str, index: int) -> AdapterSpec | None:
        what = f"{node}.adapters[{index}]"
        entries = self.entries(item, what)
        if not isinstance(item.value, dict):
            return None
        self.keys(entries, ADAPTER_KEYS, what, node=node)
        if "use" not in entries:
            found = f"{what} does not say which component it uses"
            self.collector.add("missing-key", found, place=item.at, hint="add `use: adapter/lora`", node=node)
            return None
        use, source = self.text(entries["use"], f"{what}.use", node=node), self.text(entries.get("from"), f"{what}.from", node=node)
        if use is None:
            return None
        config, wires = self.config(entries.get("with"), what), self.wires(entries.get("in"), what)
        folder = self.folders.get(source.home if source else item.at.file)
        return AdapterSpec(use, source, config, wires, item.at, folder)

    # -- runtime -----------------------------------------------------------------------------------------------------

    def node_runtime(self, item: Item | None, node: str) -> dict[str, Value]:
        """The `runtime` of a node."""
        entries = self.entries(item, f"{node}.runtime")
        self.keys(entries, NODE_RUNTIME_KEYS, f"{node}.runtime", node=node)
        found = {key: self._placement(key, entry, f"{node}.runtime.{key}") for key, entry in entries.items() if key in NODE_RUNTIME_KEYS}
        return {key: value for key, value in found.items() if value is not None}

    def runtime(self, item: Item | None) -> tuple[dict[str, Value], dict[str, dict[str, Value]]]:
        """The `runtime` of the graph: its own values, and those for single nodes by node."""
        entries = self.entries(item, "runtime")
        self.keys(entries, RUNTIME_KEYS, "runtime")
        whole: dict[str, Value] = {}
        single: dict[str, dict[str, Value]] = {}
        for key, entry in entries.items():
            if key not in RUNTIME_KEYS:
                continue
            if not isinstance(entry.value, dict) or RUNTIME_KEYS[key].is_whole:
                if (value := self._placement(key, entry, f"runtime.{key}")) is not None:
                    whole[key] = value
                continue
            for node, part in entry.value.items():
                value = self._placement(key, part, f"runtime.{key}.{node}")
                if value is not None:
                    (whole if node == "default" else single.setdefault(node, {}))[key] = value
        return whole, single

    def _placement(self, key: str, item: Item, what: str) -> Value | None:
        filled, known = self.scope.fill(item), RUNTIME_KEYS[key]
        value = filled.value
        is_flag = isinstance(value, bool)
        is_number = not is_flag and isinstance(value, int | float) and isinstance(value, known.types)
        if not (is_number or (is_flag and bool in known.types) or (str in known.types and isinstance(value, str) and value)):
            wanted = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}[known.types[0]]
            self.wrong_type(item._replace(value=value), what, wanted)
            return None
        if is_number and not 0 < value < float("inf"):
            self.collector.add("wrong-value", f"{what} is {value}; wanted a number above 0", place=item.at)
            return None
        if known.words and value not in known.words:
            found = f"{what} is '{value}'; wanted one of: {', '.join(known.words)}"
            self.collector.add("wrong-value", found, place=item.at, hint=nearest(value, known.words))
            return None
        return filled if known.read is None else self._read_placement(known.read, filled, what, item)

    def _read_placement(self, read: Callable[[Any], object], filled: Value, what: str, item: Item) -> Value | None:
        try:
            read(filled.value)
        except ValueError as error:
            self.collector.add("wrong-value", f"{what}: {error}", place=item.at)
            return None
        return filled

    # -- inputs and outputs ------------------------------------------------------------------------------------------

    def inputs(self, item: Item | None) -> dict[str, GraphInput]:
        """The `inputs` of the graph."""
        read = {name: self._input(name, entry) for name, entry in self.entries(item, "inputs").items() if self.name(name, entry, "input")}
        return {name: found for name, found in read.items() if found is not None}

    def _input(self, name: str, item: Item) -> GraphInput | None:
        form = item.value if isinstance(item.value, dict) else {"type": item}
        self.keys(form, INPUT_KEYS, f"the input {name}")
        if "type" not in form:
            found = f"the input {name} does not say its type"
            self.collector.add("missing-key", found, place=item.at, hint="add `type: image`, or any other port type")
            return None
        kind = self._port(name, form["type"])
        if kind is None:
            return None
        doc = form["doc"].value if "doc" in form else ""
        if not isinstance(doc, str):
            self.wrong_type(form["doc"], f"doc of the input {name}", "a text")
        default = self.scope.fill(form["default"]).value if "default" in form else None
        if "default" in form and (wanted := self.registry.misfit(kind, default, self.registry.record_types)) is not None:
            self.wrong_type(form["default"]._replace(value=default), f"the default of the input {name}", wanted)
        return GraphInput(name, kind, default, "default" in form, str(doc), item.at)

    def _port(self, name: str, item: Item) -> Port | None:
        filled = self.text(item, f"the type of the input {name}")
        if filled is None:
            return None
        try:
            kind = port(filled.value)
        except PortSyntaxError as error:
            self.collector.add("bad-port-type", str(error), place=item.at)
            return None
        there = self.registry.record_types
        unknown = [record.name for part in kind.types if isinstance(record := _record(part), Modality) and record.name not in there]
        for lost in unknown:
            found = f"the input {name} is of type '{lost}', which nothing registers; there are: {choices(there)}"
            self.collector.add("unknown-type", found, place=item.at, hint=nearest(lost, there))
        return None if unknown else kind

    def filled(self, item: Item) -> Item:
        """The item with its params filled in, piece by piece: each keeps its place."""
        if isinstance(item.value, dict):
            return item._replace(value={key: self.filled(part) for key, part in item.value.items()})
        is_list = isinstance(item.value, list)
        return item._replace(value=[self.filled(part) for part in item.value] if is_list else self.scope.fill(item).value)

    def outputs(self, item: Item | None) -> dict[str, Ref]:
        """The `outputs` of the graph."""
        entries = self.entries(item, "outputs")
        read = {name: self.ref(entry, f"outputs.{name}") for name, entry in entries.items() if self.name(name, entry, "output")}
        return {name: ref for name, ref in read.items() if ref is not None}

    def top_level(self, root: Item) -> None:
        """Check the keys of the document itself."""
        self.keys(root.value, TOP_KEYS, "a graph")
        for key, what in (("nodes", "add at least one part"), ("outputs", "say what a run gives: {text: llm.text}")):
            if key not in root.value or root.value[key].value in (None, {}):
                place = root.value[key].at if key in root.value else root.place
                self.collector.add("missing-key", f"the graph has no {key}", place=place, hint=what)


def _record(kind: PortType) -> PortType:
    return _record(kind.item) if isinstance(kind, ListOf) else kind
