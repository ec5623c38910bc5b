"""Graphs written in Python: the items that a YAML document would give, with the line of Python as their place."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from modelgraft.kernel.language.document import LANGUAGE_VERSION, Document
from modelgraft.kernel.language.interpolate import NAME_PATTERN
from modelgraft.kernel.language.yaml_reader import Item
from modelgraft.kernel.words.errors import Collector, Place, Problem
from modelgraft.kernel.words.graph import INPUTS

LAYER = "code"  # what origins say of values that were written in Python
PACKAGE = "modelgraft"


class Handle:
    """What stands for a node, a port or an input while a graph is written in Python: `eye`, `eye.tokens`, `eye["tokens"]`."""

    __slots__ = ("_home", "_text")
    __iter__ = None  # without it, [] would make it look like a sequence

    def __init__(self, home: object, text: str) -> None:
        self._home, self._text = home, text

    def __getattr__(self, name: str) -> Handle:
        if name.startswith("_"):
            raise AttributeError(f"'{self._text}' has no attribute '{name}'")
        return self[name]

    def __getitem__(self, name: str) -> Handle:
        if "." in self._text:
            raise AttributeError(f"'{self._text}' is a port already; it has no port '{name}' in it")
        return Handle(self._home, f"{self._text}.{name}")

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"<{'port' if '.' in self._text else 'node'} {self._text}>"


@dataclass(frozen=True, slots=True)
class CodedAdapter:
    """An adapter before the node that it is grafted into: `node(..., adapters=[graph.adapter("adapter/lora", rank=8)])`."""

    item: Item


def is_wire(value: Any) -> bool:
    """Whether a value feeds a port, rather than being a setting: a handle, or a list of them."""
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(part, Handle) for part in value)
    return isinstance(value, Handle)


def calling_place() -> Place:
    """Where the user's code calls this package: file and line; of a notebook the number of its cell."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] == PACKAGE:
        frame = frame.f_back
    if frame is None:
        return Place("Python")
    file, cells = frame.f_code.co_filename, frame.f_globals.get("In")
    if isinstance(cells, list) and ("ipykernel" in file or file.startswith("<ipython-input")):
        file = f"In[{len(cells) - 1}]"
    return Place(file, frame.f_lineno)


@dataclass(slots=True)
class Coded:
    """A document that grows: its sections by name, and what is wrong with what was written so far.

    home    what the handles of this document carry: those of another graph are a mistake
    inner   the documents of graphs that stand as nodes, by the text after `graph:`
    """

    place: Place
    doc: str = ""
    path: Path = Path("graph.yaml")
    is_code: bool = True
    is_changed: bool = False
    sections: dict[str, Item] = field(default_factory=dict)
    inner: dict[str, Document] = field(default_factory=dict)
    folders: Mapping[str, Path | None] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    home: object = field(default_factory=object)

    def document(self) -> Document:
        """The document as it is now; it does not change when this one grows."""
        sections = {"modelgraft": Item(LANGUAGE_VERSION, self.place, layer=LAYER), **self.sections}
        path = self.path if not self.is_code else Path(f"{id(self)}", self.path)  # two graphs of one script are not one file
        return Document(
            path, Item(sections, self.place, layer=LAYER), self.doc, dict(self.inner), self.folders, self.is_code, self.is_changed
        )

    def names(self, section: str) -> tuple[str, ...]:
        """What stands in a section."""
        item = self.sections.get(section)
        return tuple(item.value) if item is not None and isinstance(item.value, dict) else ()

    def put(self, section: str, name: str, item: Item) -> None:
        """Add an entry to a section. A name that is there already is a problem; the first one stays."""
        there = self.sections.get(section)
        entries: Mapping[str, Item] = there.value if there is not None and isinstance(there.value, dict) else {}
        if name in entries:
            found = f"the {section[:-1]} '{name}' is there already: {entries[name].at.short}"
            hint = "give this one another name; in a notebook, begin the graph anew before its cells run again"
            self.tell("duplicate-key", found, item.at, hint=hint)
            return
        self.sections[section] = Item({**entries, name: item}, there.place if there else item.place, layer=LAYER)

    def tell(self, code: str, found: str, place: Place, *, hint: str = "", node: str = "") -> None:
        """Note a problem; it is raised with all others when the graph is checked."""
        collector = Collector(self.problems)
        collector.add(code, found, place=place, hint=hint, node=node)

    def free_name(self, wanted: str) -> str:
        """A name for a node that is not taken: `encoder`, `encoder_2`."""
        word = re.sub(r"\W", "_", wanted.partition("@")[0].strip()) or "node"
        word = word if NAME_PATTERN.fullmatch(word) and word != INPUTS else f"node_{word}"
        taken, count = self.names("nodes"), 2
        name = word
        while name in taken:
            name, count = f"{word}_{count}", count + 1
        return name

    # -- items ----------------------------------------------------------------------------------------------------------

    def value(self, value: Any, place: Place, what: str) -> Item:
        """A setting: text, number, true or false, None, and lists and mappings of them."""
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            return _item({key: self.value(part, place, f"{what}.{key}") for key, part in value.items()}, place)
        if isinstance(value, list | tuple):
            return _item([self.value(part, place, f"{what}[{index}]") for index, part in enumerate(value)], place)
        if value is None or isinstance(value, bool):
            return _item(value, place)
        if isinstance(value, str | Path):
            return _item("".join(str.__str__(value)) if isinstance(value, str) else str(value), place)
        if isinstance(value, int | float):
            return _item(int(value) if isinstance(value, int) else float(value), place)
        if isinstance(value, Handle):
            found, hint = f"{what} holds the port {value} among other values", "a wire is a port, or a list of nothing but ports"
        else:
            found = f"{what} is {_named(value)}; a graph holds texts, numbers, true and false, None, lists, and mappings by text"
            hint = "give a plain value" + (f", such as {value.item()!r}" if _is_scalar(value) else "")
        self.tell("wrong-type", found, place, hint=hint)
        return _item(None, place)

    def wire(self, value: Any, place: Place, what: str) -> Item:
        """What feeds a port: a handle, the text of a reference, or a list of them."""
        if isinstance(value, list | tuple):
            return _item([self.wire(part, place, f"{what}[{index}]") for index, part in enumerate(value)], place)
        if isinstance(value, Handle):
            if value._home is not self.home:
                hint = "place that graph as a node: node(graph=...), and wire its outputs"
                self.tell("bad-reference", f"{what} is {value} of another graph", place, hint=hint)
            return _item(str(value), place)
        return self.value(value, place, what)

    def split(self, values: Mapping[str, Any], inputs: Mapping[str, Any], config: Mapping[str, Any], place: Place, what: str) -> _Parts:
        """Tell wires from settings; `inputs` and `config` say it themselves.

        By keyword a port is a wire, and so is the text "inputs.NAME" of an input that there is; all else is a setting.
        """
        wires, settings = dict(inputs), dict(config)
        for key, value in values.items():
            kind, side = ("inputs", wires) if is_wire(value) or self._names_input(value) else ("config", settings)
            if key in side:
                self.tell("duplicate-key", f"{what} is given '{key}' by keyword and in {kind}={{...}}", place, hint="keep one of them")
            side[key] = value
        parts: _Parts = {}
        if settings:
            parts["with"] = _item({key: self.value(value, place, f"{what}.{key}") for key, value in settings.items()}, place)
        if wires:
            parts["in"] = _item({key: self.wire(value, place, f"{what}.{key}") for key, value in wires.items()}, place)
        return parts

    def _names_input(self, value: Any) -> bool:
        """Whether a text is the reference to an input of this graph."""
        return isinstance(value, str) and value.startswith(f"{INPUTS}.") and value.partition(".")[2] in self.names(INPUTS)

    def adapters(self, given: Sequence[Any], place: Place, what: str) -> Item:
        """The adapters of a node, in order."""
        items = []
        for index, adapter in enumerate(given):
            if isinstance(adapter, CodedAdapter):
                items.append(adapter.item)
            else:
                found = f"{what}.adapters[{index}] is {_named(adapter)}; wanted what adapter(...) of the graph gave"
                self.tell("wrong-type", found, place, hint='write adapters=[graph.adapter("adapter/lora", rank=8)]')
        return _item(items, place)


_Parts = dict[str, Item]


def _item(value: Any, place: Place) -> Item:
    return Item(value, place, place, LAYER)


def _named(value: Any) -> str:
    """What a value is, for messages."""
    if isinstance(value, Mapping):
        return "a mapping whose keys are not all text"
    kind = type(value)
    return f"a {kind.__name__}" if kind.__module__ == "builtins" else f"a {kind.__module__}.{kind.__qualname__}"


def _is_scalar(value: Any) -> bool:
    """One number of numpy or torch."""
    shape = getattr(value, "shape", None)
    return shape is not None and not isinstance(value, Handle) and tuple(shape) == () and hasattr(value, "item")
