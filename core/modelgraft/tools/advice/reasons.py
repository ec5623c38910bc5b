"""Where a number comes from, in words: which config field or port says it, and where that stands."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from inspect import isfunction
from typing import Any

from modelgraft.kernel.checking.drafts import Part
from modelgraft.kernel.checking.solver import Equation
from modelgraft.kernel.checking.unify import Link, Unified
from modelgraft.kernel.words.errors import Place
from modelgraft.kernel.words.graph import INPUTS, Origin
from modelgraft.kernel.words.guard import contained
from modelgraft.kernel.words.kinds import DimMark
from modelgraft.kernel.words.ports import Axis

DEEPEST = 3  # of sums that follow from sums, a person wants no more


@dataclass(frozen=True, slots=True)
class Reason:
    """Who decided a number.

    words      a sentence part: "1408 is vision.hidden_size, line 11"
    part, key  the config field, when it is one;  literal  the text field that holds the number, instead
    """

    words: str
    part: Part | None = None
    key: str = ""
    literal: bool = False

    @property
    def origin(self) -> Origin | None:
        """Where the field's value comes from; None when no field decided."""
        return self.part.origins.get(self.key) if self.part else None

    @property
    def is_dimension(self) -> bool:
        """The field may be left to the solver."""
        described = self.part.component.config.model_fields.get(self.key) if self.part else None
        return described is not None and any(isinstance(mark, DimMark) for mark in described.metadata)


@dataclass(frozen=True, slots=True)
class Reasons:
    """Explains the numbers of solved dimensions. `near` is the place of the problem: its file need not be named again."""

    unified: Unified
    near: Place | None

    def of_axis(self, axis: Axis, end: str, owner: Part | None, depth: int = 0) -> list[Reason]:
        """Explain each number of an axis.

        end    the port it belongs to, as `node.port`;  owner  the part of that port, or None for an input of the graph
        """
        if not axis.terms:
            return [self._of_literal(axis.constant, end, owner)]
        found: list[Reason] = []
        for name, _ in axis.terms:
            found.extend(self._of_symbol(name, end, depth))
        if axis.symbol is None:
            known = self.unified.known(axis)
            words = f"{end} takes {_multiple(known)}" if known.size is None else f"{known.size} is {_local(axis)} of {end}"
            found.insert(0, Reason(words))
        return found

    def _of_symbol(self, symbol: str, end: str, depth: int) -> list[Reason]:
        fact = self.unified.dims.fact(symbol)
        if fact is None:
            return []
        way = f", by way of {symbol}" if fact.symbol != symbol and symbol.partition(".")[0] != end.partition(".")[0] else ""
        if fact.follows is None:
            reason = self._of_config(fact.symbol, fact.value)
            return [Reason(reason.words + way, reason.part, reason.key, reason.literal)]
        return self._of_equation(fact.symbol, fact.value, fact.follows, depth)

    def _of_equation(self, symbol: str, value: int, equation: Equation, depth: int) -> list[Reason]:
        link = equation.why
        if depth >= DEEPEST or not isinstance(link, Link):
            return [Reason(f"{value} is {symbol}")]
        mine = symbol in equation.left.names
        other, end = (equation.right, f"{link.node}.{link.port}") if mine else (equation.left, str(link.ref))
        owner = self.unified.owner_of_giver(link) if not mine else self.unified.owner_of_taker(link)
        if (equation.left if mine else equation.right).symbol is not None:
            return self.of_axis(other, end, owner, depth + 1)
        head = Reason(f"{value} is {symbol}, so that {link.ref} fits {link.node}.{link.port}")
        return [head, *self.of_axis(other, end, owner, depth + 1)]

    def _of_config(self, symbol: str, value: int) -> Reason:
        scope, _, name = symbol.rpartition(".")
        part = self.unified.parts.get(scope)
        if part is None:
            return Reason(f"{value} is {symbol}")
        if name in part.origins:
            return Reason(f"{value} is {symbol}, {self.origin(part, name)}", part, name)
        behind = self.behind(part, name)
        return Reason(f"{value} is {symbol}, {f'which follows from {behind}' if behind else f'fixed by {part.component.id}'}")

    def behind(self, part: Part, name: str) -> str:
        """The fields that a property is worked out from, those of one origin together; "" when it tells none."""
        by_origin: dict[str, list[str]] = {}
        for key in _fields_behind(part.config, name):
            by_origin.setdefault(self.origin(part, key), []).append(f"{key} {_as_yaml(getattr(part.config, key))}")
        return ", and ".join(f"{', '.join(fields)}, {origin}" for origin, fields in by_origin.items())

    def _of_literal(self, value: int, end: str, owner: Part | None) -> Reason:
        if owner is None:
            given = self.unified.graph.inputs.get(end.removeprefix(f"{INPUTS}."))
            where = f", {self.place(given.place)}" if given is not None and given.place else ""
            return Reason(f"{value} stands in the type of {end}{where}")
        key = _field_holding(owner, value)
        if key is None:
            return Reason(f"{value} is fixed by {owner.component.id}")
        return Reason(f"{value} stands in {owner.scope}.{key}, {self.origin(owner, key)}", owner, key, literal=True)

    def origin(self, part: Part, key: str) -> str:
        """Where a config value comes from: "line 14", "from the source preset:x (line 11)", "the default of toy/head"."""
        origin = part.origins[key]
        if origin.layer == "default":
            return f"the default of {part.component.id}"
        if origin.layer == "source":
            source = origin.note or (part.source.text if part.source else "")
            return f"from the source {source}" + (f" ({self.place(origin.place)})" if origin.place else "")
        if origin.layer == "solved":
            return f"solved: {origin.note}"
        return self.place(origin.place) if origin.place else origin.unworded

    def place(self, place: Place | None) -> str:
        """ "line 14" in the file of the problem, "other.yaml:14" elsewhere."""
        if place is None:
            return ""
        same = self.near is not None and self.near.file == place.file and place.line is not None
        return f"line {place.line}" if same else place.short


def _local(axis: Axis) -> str:
    return str(axis.rename({name: name.rpartition(".")[2] for name in axis.names}))


def _multiple(axis: Axis) -> str:
    """What sizes an axis with unknown names can have."""
    if len(axis.terms) > 1:
        return str(_local(axis))
    [(_, factor)] = axis.terms
    over = f" plus {axis.constant}" if axis.constant > 0 else f" less {-axis.constant}" if axis.constant else ""
    return f"a multiple of {factor}{over}" if factor != 1 else f"more than {axis.constant}"


def _as_yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _field_holding(part: Part, value: int) -> str | None:
    """The config field that holds a number of a port: as a number, or written in its text, such as a template."""
    config = part.config
    given = sorted(part.origins, key=lambda key: (part.origins[key].layer == "default", key))
    number = re.compile(rf"(?<!\d){value}(?!\d)")
    for key in given:
        held = getattr(config, key, None)
        if (isinstance(held, int) and held == value) or (isinstance(held, str) and number.search(held)):
            return key
    return None


def _fields_behind(config: Any, name: str) -> list[str]:
    """The config fields that a property reads, in that order: it is run on a recorder."""
    recorder = _Recorder(config)
    try:
        with contained():
            getattr(recorder, name)
    except Exception:  # noqa: BLE001 a property may ask for anything; then nothing more is said about it
        return []
    return list(recorder._read)


class _Recorder:
    """Stands in for a config, and notes which fields are read."""

    def __init__(self, config: Any) -> None:
        self._config, self._read = config, dict[str, None]()

    def __getattr__(self, name: str) -> Any:
        declared = getattr(type(self._config), name, None)
        getter = declared.fget if isinstance(declared, property) else getattr(declared, "func", None)
        if getter is not None:
            return getter(self)
        if isfunction(declared):
            return partial(declared, self)
        if name in type(self._config).model_fields:
            self._read[name] = None
        return getattr(self._config, name)
