"""Variants of a training: what a sweep sets, and what each of them is called.

A sweep is words `NAME=A,B`, a file as `modelgraft bench` reads them, or axes in Python:

    sweep: 1
    set: {training.steps: 500}                 # what holds for all
    axes:
      learning_rate: [1e-3, 1e-4]              # a key of stages, a param, a node, or a dotted key as --set has it
      look:                                    # or variants by name, each of which sets several things
        plain: {nodes.look.use: projector/linear}
        deep:  {nodes.look.use: projector/mlp, look.hidden_features: 64}
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from modelgraft.commands import (
    NODE_KEYS,
    SECTIONS,
    STAGE_KEYS,
    Collector,
    DocumentError,
    Item,
    described,
    entries_of,
    read_items,
    seen_from_here,
    value_of_words,
    written_out,
)
from modelgraft.plugin import InputError, choices, nearest
from modelgraft_plugins.listed import listed

ENDINGS = (".yaml", ".yml")
KEYS = ("sweep", "set", "axes")
VERSION = 1
MOST = 64  # variants that are trained side by side: each keeps its weights and its optimiser in memory
TAKEN = frozenset({"features", "sweep"})  # names of what lies beside the folders of variants

Sets = Mapping[str, Any]  # Any: words, or values of a file
Axes = Mapping[str, Mapping[str, Sets]]  # by axis and label: what it sets


@dataclass(frozen=True, slots=True)
class Variant:
    """One of those that are trained side by side.

    settings  of its graph, as --set has them;  flags  keys of its stages
    """

    name: str
    settings: Sets = field(default_factory=dict)
    flags: Sets = field(default_factory=dict)

    @property
    def sets(self) -> Sets:
        """All that it sets."""
        return {**self.settings, **self.flags}


def variants_of(sweep: Any, nodes: Sequence[str]) -> list[Variant]:  # Any: words, a file, or axes
    """The variants of a sweep, the last axis varying fastest. Raises InputError and DocumentError.

    sweep  words such as `learning_rate=1e-3,1e-4`, names of files, or a mapping of axes: lists of values, or what is set by label
    nodes  of the graph, by whose names axes may begin
    """
    axes: dict[str, Mapping[str, Sets]] = {}
    common: dict[str, Any] = {}
    for found, sets in _each(sweep):
        if twice := next((name for name in found if name in axes), None):
            raise InputError(f"the axis '{twice}' is given twice; give all its values in one")
        axes |= found
        common |= sets
    if not axes:
        raise InputError("the sweep has no axes; name what varies, such as learning_rate=1e-3,1e-4")
    if (count := math.prod(map(len, axes.values()))) > MOST:
        raise InputError(f"the sweep spans {count:,} variants; {MOST} at most are trained side by side")
    return [_variant(labels, axes, common, nodes) for labels in product(*axes.values())]


def _each(sweep: Any) -> list[tuple[Axes, Sets]]:
    if isinstance(sweep, Mapping):
        return [({name: _points(name, values) for name, values in sweep.items()}, {})]
    words = [sweep] if isinstance(sweep, str | Path) else list(sweep)
    return [_of_word(str(word)) for word in words]


def _of_word(word: str) -> tuple[Axes, Sets]:
    name, mark, values = word.partition("=")
    if not mark and Path(name).suffix in ENDINGS:
        return _File(Path(name)).read()
    try:
        given = listed(values) if mark and name.strip() else []
    except ValueError as error:
        raise InputError(f"the sweep '{word}': {error}") from error
    if not given:
        raise InputError(f"the sweep '{word}' names no values; wanted: NAME=A,B, or a file whose first key is `sweep`")
    return {name.strip(): {_label(name.strip(), one): {name.strip(): one} for one in given}}, {}


def _points(name: str, values: Any) -> Mapping[str, Sets]:  # Any: as a caller gives it
    if isinstance(values, Mapping):
        return {str(label): dict(sets) for label, sets in values.items()}
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise InputError(f"the axis '{name}' is {values!r}; wanted: a list of values, or what is set by label")
    return {_label(name, value): {name: value} for value in values}


def _label(name: str, value: Any) -> str:
    word = value if isinstance(value, str) else json.dumps(value)
    return f"{name.rpartition('.')[2]}={word}"


def _variant(labels: Sequence[str], axes: Axes, common: Sets, nodes: Sequence[str]) -> Variant:
    name = ",".join(labels).replace("/", ".").replace(os.sep, ".").strip()
    if not name.strip(".") or name in TAKEN:
        raise InputError(f"a variant cannot be called '{name}': a folder of that name is something else; name its axis in another way")
    settings, flags = dict[str, Any](), dict[str, Any]()
    for axis, label in [(None, None), *zip(axes, labels, strict=True)]:
        for key, value in (common if axis is None or label is None else axes[axis][label]).items():
            if key in STAGE_KEYS and key not in nodes:
                flags[key] = value_of_words(value) if isinstance(value, str) else value
            else:
                settings[key_in(key, nodes)] = value
    return Variant(name, settings, flags)


def key_in(name: str, nodes: Sequence[str]) -> str:
    """The key of --set that a name means: `look.dim` is `nodes.look.with.dim`, `look.from` is `nodes.look.from`."""
    head, dot, rest = name.partition(".")
    if not dot or head in SECTIONS or head not in nodes:
        return name
    return f"nodes.{head}.{rest}" if rest.partition(".")[0] in NODE_KEYS else f"nodes.{head}.with.{rest}"


class _File:
    """Reads a sweep file; every problem is collected. Texts that begin with `./` or `../` are seen from its folder."""

    def __init__(self, path: Path) -> None:
        self.path, self.collector = path, Collector()

    def read(self) -> tuple[Axes, Sets]:
        root = read_items(self.path)
        entries = entries_of(root, "the sweep", self.collector)
        for key, item in entries.items():
            if key not in KEYS:
                self._tell(
                    "unknown-key", f"'{key}' is no key of a sweep that is trained; there are: {choices(KEYS)}", item, nearest(key, KEYS)
                )
        if "sweep" not in entries or entries["sweep"].value != VERSION:
            self._tell(
                "unknown-version", f"the file does not say `sweep: {VERSION}`", entries.get("sweep", root), f"write `sweep: {VERSION}`"
            )
        common = self._sets(entries.get("set"), "set")
        axes = {name: self._axis(name, item) for name, item in entries_of(entries.get("axes"), "axes", self.collector).items()}
        if not axes:
            self._tell("missing-key", "the sweep has no axes", entries.get("axes", root), "write `axes: {learning_rate: [1e-3, 1e-4]}`")
        if self.collector.problems:
            raise DocumentError(self.collector.problems)
        return axes, common

    def _tell(self, code: str, found: str, item: Item, hint: str = "") -> None:
        self.collector.add(code, found, place=item.at, hint=hint)

    def _axis(self, name: str, item: Item) -> Mapping[str, Sets]:
        if isinstance(item.value, dict) and item.value:
            return {label: self._sets(sets, f"axes.{name}.{label}") for label, sets in item.value.items()}
        if isinstance(item.value, list) and item.value:
            return _points(name, [self._value(one) for one in item.value])
        found = f"the axis '{name}' is {described(item.value)}; wanted a list of values, or variants by name"
        self._tell("wrong-type", found, item, f"write `{name}: [a, b]`")
        return {}

    def _sets(self, item: Item | None, what: str) -> Sets:
        return dict(written_out(item, what, self.collector, value=self._value, whole=STAGE_KEYS))

    def _value(self, item: Item) -> Any:  # Any: what YAML holds
        """A value as YAML has it; a text as a word that `--set` reads as this text."""
        if not isinstance(item.value, str):
            return item.plain()
        text = seen_from_here(item.value, self.path.parent)
        return text if value_of_words(text) == text else json.dumps(text, ensure_ascii=False)
