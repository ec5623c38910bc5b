"""What one plugin offers: each name looked at as it is registered, and kept apart until all plugins are known."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from modelgraft.kernel.shelf.registry import Card, Lost
from modelgraft.kernel.words.backends import BackendCard
from modelgraft.kernel.words.errors import PluginError, choices, nearest
from modelgraft.kernel.words.guard import shown
from modelgraft.kernel.words.kinds import Component
from modelgraft.kernel.words.ports import DTYPE_FAMILIES, RecordKind

# What an offer is called in messages -> the table of the registry that holds it.
OFFER_TABLES: Mapping[str, str] = {
    "component": "components",
    "record type": "record_types",
    "recorded config": "recorded_configs",
    "weight reader": "weight_readers",
    "backend": "backends",
    "family": "families",
    "kept kind": "keepers",
}
# Names that belong to the core: what it reads, writes or says by itself.
CORE_NAMES: Mapping[str, tuple[str, ...]] = {
    "record type": (*DTYPE_FAMILIES, "list", "optional"),
    "weight reader": (".safetensors", ".pt", ".pth"),
    "backend": ("auto",),
    "kept kind": ("conversions", "results", "downloads"),
}
_TARGET = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
_WORD = re.compile(r"^[a-z][a-z0-9_]*$")
_DASHED = re.compile(r"^[a-z][a-z0-9_-]*$")


def may_overlap(what: str) -> bool:
    """Whether an offer takes from another whose name its own ends with: the longest ending of a file decides its reader."""
    return what == "weight reader"


@dataclass(slots=True)
class Offers:
    """What one plugin offers. Of a name that it offers twice, the first counts."""

    plugin: str
    components: dict[str, Component] = field(default_factory=dict)
    record_types: dict[str, RecordKind] = field(default_factory=dict)
    recorded_configs: dict[str, Path] = field(default_factory=dict)
    weight_readers: dict[str, str] = field(default_factory=dict)
    backends: dict[str, BackendCard] = field(default_factory=dict)
    families: dict[str, Card] = field(default_factory=dict)
    keepers: dict[str, str] = field(default_factory=dict)
    lost: list[Lost] = field(default_factory=list)

    @property
    def tables(self) -> Mapping[str, dict[str, Any]]:
        """The tables by the names that the registry has for them."""
        return {name: getattr(self, name) for name in OFFER_TABLES.values()}

    def add_component(self, subject: Any) -> None:
        """Take what `@component` decorated."""
        found = getattr(subject, "__component__", None)
        if not isinstance(found, Component):
            raise PluginError(f"register_components got {shown(subject)}, which @component does not decorate")
        self._add("component", found.id, replace(found, plugin=self.plugin))

    def add_record_type(self, kind: Any) -> None:
        """Take a record type with all that belongs to it."""
        name, meaning = getattr(kind, "name", None), getattr(kind, "meaning", None)
        if isinstance(kind, type) or not callable(getattr(kind, "lacks", None)):
            raise PluginError(f"register_record_types got {shown(kind)}; wanted: an object of a modelgraft.plugin.RecordType")
        if not isinstance(name, str) or not _WORD.match(name):
            raise PluginError(f"register_record_types got the name {shown(name)}; wanted: a word in lower case, such as mesh")
        if not isinstance(meaning, str) or not meaning.strip():
            raise PluginError(f"the record type '{name}' has no meaning: wanted a few words, such as 'a surface of triangles'")
        if lacking := kind.lacks():
            raise PluginError(f"the record type '{name}' {lacking}")
        self._add("record type", name, kind)

    def refuse_port_type(self, name: str, meaning: str) -> None:  # noqa: ARG002 as plugins call it
        """Say what is missing: a name alone cannot be read from a file, checked or written."""
        found = f"register_port_types offers the record type {shown(name)} without a reader"
        raise PluginError(f"{found}: offer a modelgraft.plugin.RecordType by register_record_types")

    def add_recorded_config(self, source: str, folder: str | os.PathLike[str]) -> None:
        """Take the folder that stands for a published checkpoint."""
        if not isinstance(source, str) or not source.strip():
            raise PluginError(f"register_recorded_configs got the source {shown(source)}; wanted: a hub id, preset:name or pypi:...")
        if not isinstance(folder, str | os.PathLike):
            raise PluginError(f"the recorded config '{source}' has the folder {shown(folder)}; wanted: a path")
        self._add("recorded config", source, Path(folder))

    def add_weight_reader(self, suffix: str, target: str) -> None:
        """Take a reader of files with an ending."""
        if not isinstance(suffix, str) or not suffix.startswith(".") or len(suffix) == 1:
            raise PluginError(f"register_weight_readers got the ending {shown(suffix)}; wanted: one with its dot, such as .gguf")
        self._add("weight reader", suffix, _target(f"the weight reader of {suffix}", target))

    def add_backend(self, name: str, target: str, **facts: Any) -> None:  # Any: the fields of BackendCard
        """Take a backend, with what it says of itself."""
        if not isinstance(name, str) or not _DASHED.match(name):
            raise PluginError(f"register_backends got the name {shown(name)}; wanted: a word in lower case, such as vllm")
        card = BackendCard(_target(f"the backend '{name}'", target), **_facts_of_backend(name, facts))
        self._add("backend", name, card)

    def add_family(self, card: Card) -> None:
        """Take the card of a family."""
        if not isinstance(card, Card):
            raise PluginError(f"register_families got {shown(card)}; wanted: a FamilyCard")
        if not isinstance(card.name, str) or not _DASHED.match(card.name):
            raise PluginError(f"register_families got a card named {shown(card.name)}; wanted: a word in lower case, such as my_family")
        self._add("family", card.name, card)

    def add_keeper(self, kind: str, target: str) -> None:
        """Take who keeps things of a kind."""
        if not isinstance(kind, str) or not _WORD.match(kind):
            raise PluginError(f"register_keepers got the kind {shown(kind)}; wanted: a word in lower case, such as exports")
        self._add("kept kind", kind, _target(f"the keeper of '{kind}'", target))

    def names(self) -> Iterator[tuple[str, str]]:
        """Everything that is offered, as (what, name)."""
        for what, table in OFFER_TABLES.items():
            yield from [(what, name) for name in getattr(self, table)]

    def drop(self, what: str, name: str) -> None:
        """Take an offer back."""
        getattr(self, OFFER_TABLES[what]).pop(name)

    def update(self, other: Offers) -> None:
        """Take over what another offers; nothing of it may be here already."""
        for name, table in self.tables.items():
            table.update(getattr(other, name))

    def _add(self, what: str, name: str, value: Any) -> bool:
        table = getattr(self, OFFER_TABLES[what])
        if name in table:
            self.lost.append(Lost(what, name, f"{self.plugin}, which offers it twice"))
            return False
        table[name] = value
        return True


def _facts_of_backend(name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a backend says of itself, as its card holds it."""
    known = {one.name: one.type for one in fields(BackendCard) if one.name != "target"}
    found: dict[str, Any] = {}
    for fact, value in facts.items():
        if fact not in known:
            near = nearest(fact, known)
            raise PluginError(f"the backend '{name}' says '{fact}' of itself; known is: {choices(known, sort=False)}. {near}".rstrip())
        is_switch = known[fact] == "bool"
        if is_switch and not isinstance(value, bool):
            raise PluginError(f"the backend '{name}' has {fact}={shown(value)}; wanted: True or False")
        names = value if is_switch else tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else None
        if not is_switch and (names is None or not all(isinstance(one, str) for one in names)):
            raise PluginError(f"the backend '{name}' has the {fact} {shown(value)}; wanted: a list of names")
        found[fact] = names
    return found


def _target(what: str, target: Any) -> str:
    """Where code lies, as "package.module:name"."""
    if not isinstance(target, str) or not _TARGET.match(target):
        raise PluginError(f"{what} lies at {shown(target)}; wanted: package.module:name")
    return target
