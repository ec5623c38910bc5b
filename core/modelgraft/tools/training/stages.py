"""The section `training`, read into values that know where they stand. Every problem is collected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import PurePath
from typing import Any

from modelgraft.kernel.language.document import described
from modelgraft.kernel.language.interpolate import NAME_HINT, NAME_PATTERN
from modelgraft.kernel.language.yaml_reader import Item
from modelgraft.kernel.words.errors import Collector, Place, nearest
from modelgraft.kernel.words.graph import GraphSpec, Origin, Value
from modelgraft.tools.training.stage_words import STAGE_KEYS, STAGES, TUNE_KEYS, TUNES, Key

ONLY = "train"  # the name of the stage of a graph that lists none
Entries = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage as written.

    values   what it says, and what `training` says for all stages, by key; entries of mappings are values of their own
    """

    name: str
    place: Place
    values: Entries

    def __getitem__(self, key: str) -> Any:
        """The value of a key, or its default."""
        found = self.values.get(key)
        return STAGE_KEYS[key].default if found is None else plain(found)

    def origin(self, key: str) -> Origin:
        """Where a value comes from."""
        found = self.values.get(key)
        return Origin("default") if found is None else found.origin

    def entries(self, key: str) -> Entries | None:
        """The entries of a mapping, or of a list as its keys; None where nothing is said."""
        found = self.values.get(key)
        return None if found is None or not isinstance(found.value, Mapping) else found.value

    def of_node(self, key: str, node: str) -> Value | None:
        """What a key that may be a mapping by node says of a node; None where nothing is said."""
        found = self.values.get(key)
        if found is None or not isinstance(found.value, Mapping):
            return found
        by_node: Entries = found.value
        return by_node.get(node, by_node.get("default"))

    def with_(self, **given: Any) -> Stage:
        """The stage with values that the caller gives: flags of the command, arguments of Python. Raises GraphError for wrong ones."""
        collector = Collector()
        reader = _Reader(collector)
        read = {key: reader._value(key, _given(value, Place(f"--{key}")), "training") for key, value in given.items()}
        collector.finish()
        return replace(self, values={**self.values, **{key: value for key, value in read.items() if value is not None}})


@dataclass(frozen=True, slots=True)
class Training:
    """How a graph is trained: its stages in order."""

    stages: tuple[Stage, ...]
    place: Place

    def stage(self, name: str) -> Stage | None:
        """A stage by its name, or by its number from 1 on."""
        by_number = self.stages[int(name) - 1] if name.isdigit() and 0 < int(name) <= len(self.stages) else None
        return next((stage for stage in self.stages if stage.name == name), by_number)


def plain(value: Value) -> Any:
    """A value without where it comes from."""
    if isinstance(value.value, Mapping):
        return {key: plain(part) if isinstance(part, Value) else part for key, part in value.value.items()}
    return value.value


def read_training(graph: GraphSpec, collector: Collector) -> Training | None:
    """What a graph says of its training; None where it says nothing. Problems go to the collector."""
    if graph.training is None:
        return None
    return _Reader(collector).training(graph.training)


def given_over(graph: GraphSpec, flags: Mapping[str, Any]) -> GraphSpec:
    """The graph whose stages have what the caller gives in place of what they say, so that it is checked as it will be trained."""
    section = graph.training
    if section is None or not isinstance(section.value, dict) or not flags:
        return graph

    def without(item: Item) -> Item:
        return item._replace(
            value={key: part for key, part in item.value.items() if key not in flags} if isinstance(item.value, dict) else item.value
        )

    said: dict[str, Item] = without(section).value
    stages = said.get(STAGES)
    if stages is not None and isinstance(stages.value, dict):
        said = {**said, STAGES: stages._replace(value={name: without(part) for name, part in stages.value.items()})}
    given = {key: _given(value, Place(f"--{key}")) for key, value in flags.items()}
    return replace(graph, training=section._replace(value={**said, **given}))


@dataclass(slots=True)
class _Reader:
    collector: Collector
    noted: set[str] = field(default_factory=set)

    def training(self, item: Item) -> Training:
        entries = self._mapping(item, "training")
        self._keys(entries, (*STAGE_KEYS, STAGES), "training")
        common = {key: value for key, part in entries.items() if key in STAGE_KEYS and (value := self._value(key, part, "training"))}
        listed = entries.get(STAGES)
        stages = self._mapping(listed, "training.stages") if listed is not None else {ONLY: item._replace(value={})}
        read = [self._stage(name, part, common) for name, part in stages.items() if self._is_name(name, part)]
        if listed is not None and not stages:
            self.collector.add("missing-key", "training.stages names no stage", place=listed.at, hint="leave it out, or name one")
        return Training(tuple(read), item.at)

    def _is_name(self, name: str, item: Item) -> bool:
        if NAME_PATTERN.fullmatch(name) is None:
            self.collector.add("bad-name", f"the stage '{name}' is no name", place=item.at, hint=NAME_HINT)
            return False
        return True

    def _stage(self, name: str, item: Item, common: Entries) -> Stage:
        what = f"training.stages.{name}"
        entries = self._mapping(item, what) if item.value is not None else {}
        self._keys(entries, STAGE_KEYS, what)
        own = {key: value for key, part in entries.items() if key in STAGE_KEYS and (value := self._value(key, part, what))}
        over = {key: _over(own[key], common[key]) for key in own.keys() & common.keys()}
        return Stage(name, item.at, {**common, **own, **over})

    def _mapping(self, item: Item, what: str) -> Mapping[str, Item]:
        if isinstance(item.value, dict):
            return item.value
        self._wrong(item, what, "a mapping")
        return {}

    def _keys(self, entries: Mapping[str, Item], known: Sequence[str] | Mapping[str, Any], what: str) -> None:
        for key in entries:
            if key not in known:
                found = f"{what} has no key '{key}'; the keys are: {', '.join(known)}"
                self.collector.add("unknown-key", found, place=entries[key].at, hint=nearest(key, known))

    def _wrong(self, item: Item, what: str, wanted: str) -> None:
        self.collector.add("wrong-type", f"{what} is {described(item.value)}; wanted {wanted}", place=item.at)

    # -- values ----------------------------------------------------------------------------------------------------------

    def _value(self, key: str, item: Item, where: str) -> Value | None:
        what, known = f"{where}.{key}", STAGE_KEYS[key]
        if item.value is None:  # as if nothing were said: with `extends`, what the graph below said is gone
            return None
        if isinstance(item.value, dict) and (known.by_node or dict in known.types):
            read = {name: self._entry(key, known, part, f"{what}.{name}") for name, part in item.value.items()}
            return Value({name: value for name, value in read.items() if value is not None}, _origin(item))
        if isinstance(item.value, list) and list in known.types:
            return self._list(key, known, item, what)
        return self._single(known, item, what)

    def _entry(self, key: str, known: Key, item: Item, what: str) -> Value | None:
        if key == "train":
            return self._tune(item, what)
        if key == "columns":
            return self._single(Key((str,), ""), item, what)
        return self._single(Key((int, float), "", least=0), item, what) if key == "losses" else self._single(known, item, what)

    def _tune(self, item: Item, what: str) -> Value | None:
        """How a node is tuned, as {tune: ..., parts: [...]}."""
        if not isinstance(item.value, dict):
            word = self._single(Key((str,), "", words=tuple(TUNES)), item, what)
            return None if word is None else Value({"tune": word.value, "parts": ()}, word.origin)
        self._keys(item.value, TUNE_KEYS, what)
        word = self._single(Key((str,), "", words=tuple(TUNES)), item.value["tune"], f"{what}.tune") if "tune" in item.value else None
        parts = item.value.get("parts")
        names = tuple(part.value for part in parts.value) if parts is not None and isinstance(parts.value, list) else ()
        if parts is not None and (not names or not all(isinstance(name, str) for name in names)):
            self._wrong(parts, f"{what}.parts", "a list of names")
        kind = word.value if word is not None else "partial" if names else "full"
        if (kind == "partial") != bool(names):
            hint = "write {tune: partial, parts: [...]}"
            found = f"{what} is partial, and does not say what of it" if kind == "partial" else f"{what} is {kind}, and names parts"
            self.collector.add("wrong-value", found, place=item.at, hint=hint)
            return None
        return Value({"tune": kind, "parts": names}, _origin(item))

    def _list(self, key: str, known: Key, item: Item, what: str) -> Value | None:
        if key == "betas":
            numbers = [part.value for part in item.value]
            if len(numbers) != 2 or not all(
                isinstance(each, int | float) and not isinstance(each, bool) and 0 <= each < 1 for each in numbers
            ):
                self._wrong(item, what, "two numbers from 0 on, below 1")
                return None
            return Value(tuple(numbers), _origin(item))
        names = [self._single(Key((str,), ""), part, f"an entry of {what}") for part in item.value]
        there = {name.value: name for name in names if name is not None}
        if dict not in known.types:
            return Value(tuple(there), _origin(item))
        usual: Any = {"tune": "full", "parts": ()} if key == "train" else 1.0
        return Value({name: Value(usual, value.origin) for name, value in there.items()}, _origin(item))

    def _single(self, known: Key, item: Item, what: str) -> Value | None:
        value = item.value
        is_right = isinstance(value, known.types) and (bool in known.types or not isinstance(value, bool)) and value != ""
        if not is_right or isinstance(value, dict | list):
            self._wrong(item, what, wanted(known))
            return None
        if known.words and isinstance(value, str) and value not in known.words:
            found = f"{what} is '{value}'; wanted one of: {', '.join(known.words)}"
            self.collector.add("wrong-value", found, place=item.at, hint=nearest(value, known.words))
            return None
        if isinstance(value, int | float) and not isinstance(value, bool) and not _is_within(known, value):
            self.collector.add("wrong-value", f"{what} is {value}; wanted {wanted(known)}", place=item.at)
            return None
        return Value(value, _origin(item), item.at.file)


def _is_within(known: Key, value: float) -> bool:
    if isinstance(value, float) and not isfinite(value):
        return False
    return (known.least is None or value >= known.least) and (known.most is None or value <= known.most)


def wanted(known: Key) -> str:
    """What a key takes, in words."""
    if known.words:
        return f"one of: {', '.join(known.words)}"
    names = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", dict: "a mapping", list: "a list"}
    types = [kind for kind in known.types if not (kind is int and float in known.types)]
    bounds = (
        "" if known.least is None else f" from {known.least:g} on" if known.most is None else f" from {known.least:g} to {known.most:g}"
    )
    return " or ".join(names[kind] + (bounds if kind in (int, float) else "") for kind in types)


def _given(value: Any, place: Place) -> Item:
    """What a caller gives, as if a graph said it."""
    plain_value = str(value) if isinstance(value, PurePath) else value
    if isinstance(value, Mapping):
        plain_value = {key: _given(part, place) for key, part in value.items()}
    elif isinstance(value, list | tuple):
        plain_value = [_given(part, place) for part in value]
    return Item(plain_value, place, layer="flag")


def _origin(item: Item) -> Origin:
    return Origin(item.layer, item.at, replaced=item.replaced)


def _over(value: Value, below: Value) -> Value:
    """The value of a stage, which knows what `training` says for the others."""
    return (
        value
        if isinstance(below.value, Mapping)
        else replace(value, origin=replace(value.origin, replaced=(below, *value.origin.replaced)))
    )
