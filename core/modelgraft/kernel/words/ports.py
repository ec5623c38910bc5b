"""Port types: how a value that travels on a wire is described.

    image  audio  text  conversation  ...                                                  a record type each, see `modelgraft records`
    float[batch tokens width]   int64[batch tokens]   bool[batch]                          tensors, first axis `batch`
    list[image]   optional[text]   text | float[batch tokens width]                        composed

A value on a modality port is always a list of records, the batch; a tensor's first axis is `batch`. Axes follow
jaxtyping: a name, a size, a sum or multiple of them (`tokens+1`, `2*width`), or `...` for any number of axes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Protocol

# dtype families: what a declared dtype accepts. `float` is any floating dtype, `int` any integer one.
DTYPE_FAMILIES: Mapping[str, frozenset[str]] = {
    "float": frozenset({"float16", "bfloat16", "float32", "float64"}),
    "int": frozenset({"int8", "uint8", "int16", "int32", "int64"}),
    "mask": frozenset({"bool"}),
    **{name: frozenset({name}) for name in ("float16", "bfloat16", "float32", "float64")},
    **{name: frozenset({name}) for name in ("int8", "uint8", "int16", "int32", "int64", "bool")},
}


BATCH = "batch"  # the one axis name that means the same in the whole graph
BOTH = frozenset({"mask"})  # a dtype where axes follow it, a record type alone


class RecordKind(Protocol):
    """What the kernel asks of a record type; all else is between it and who reads and writes records."""

    @property
    def name(self) -> str:
        """The word that ports have for it."""

    @property
    def meaning(self) -> str:
        """What it is, in a few words."""

    def misfit(self, default: Any) -> str | None:
        """What the default of a graph's input should have been; None when it fits."""

    def lacks(self) -> str:
        """What is missing to use it; "" when nothing is."""


class PortSyntaxError(ValueError):
    """A port type that cannot be read: a mistake of the component's author."""


@dataclass(frozen=True, slots=True)
class Axis:
    """The size of one axis: `constant + sum(factor * name)`. Without names it is a number."""

    terms: tuple[tuple[str, int], ...] = ()
    constant: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """The names in it."""
        return tuple(name for name, _ in self.terms)

    @property
    def size(self) -> int | None:
        """The number, or None while it has unknown names."""
        return None if self.terms else self.constant

    @property
    def symbol(self) -> str | None:
        """The name, when the axis is one bare name."""
        return self.terms[0][0] if self.constant == 0 and len(self.terms) == 1 and self.terms[0][1] == 1 else None

    def bind(self, values: Mapping[str, int]) -> Axis:
        """Replace the names that have values."""
        constant, rest = self.constant, []
        for name, factor in self.terms:
            if name in values:
                constant += factor * values[name]
            else:
                rest.append((name, factor))
        return Axis(tuple(rest), constant)

    def rename(self, names: Mapping[str, str]) -> Axis:
        """Give names other names; those that are not listed stay."""
        return Axis(tuple((names.get(name, name), factor) for name, factor in self.terms), self.constant)

    def __str__(self) -> str:
        parts = [name if factor == 1 else f"{factor}*{name}" for name, factor in self.terms]
        if self.constant or not parts:
            parts.append(str(self.constant))
        return "+".join(parts).replace("+-", "-")


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor type. `axes` holds None where the text says `...`."""

    dtype: str
    axes: tuple[Axis | None, ...]

    def __str__(self) -> str:
        return f"{self.dtype}[{' '.join('...' if axis is None else str(axis) for axis in self.axes)}]"

    def bind(self, values: Mapping[str, int]) -> Tensor:
        """Replace the names that have values."""
        return Tensor(self.dtype, tuple(axis if axis is None else axis.bind(values) for axis in self.axes))

    def rename(self, names: Mapping[str, str]) -> Tensor:
        """Give names other names; those that are not listed stay."""
        return Tensor(self.dtype, tuple(axis if axis is None else axis.rename(names) for axis in self.axes))

    @property
    def names(self) -> tuple[str, ...]:
        """The names in its axes, each once."""
        return tuple(dict.fromkeys(name for axis in self.axes if axis is not None for name in axis.names))


@dataclass(frozen=True, slots=True)
class Modality:
    """A record type by its name, such as `image`: what it is stands in the registry."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list of values within one record, such as the labels to choose from."""

    item: Modality | Tensor | ListOf

    def bind(self, values: Mapping[str, int]) -> ListOf:
        """Replace the names that have values."""
        return self if isinstance(self.item, Modality) else ListOf(self.item.bind(values))

    def __str__(self) -> str:
        return f"list[{self.item}]"


PortType = Modality | Tensor | ListOf


def tensor_in(type_: PortType) -> Tensor | None:
    """The tensor type itself, or the one that a list holds; None for records."""
    while isinstance(type_, ListOf):
        type_ = type_.item
    return type_ if isinstance(type_, Tensor) else None


def names_in(type_: PortType) -> tuple[str, ...]:
    """The axis names in a type, each once."""
    tensor = tensor_in(type_)
    return () if tensor is None else tensor.names


@dataclass(frozen=True, slots=True)
class Space:
    """A value space that both ends of a wire must share: `Space.of("pixels", mean=..., std=...)`.

    Two spaces agree when the family is the same and every fact that both state is equal. A fact that one side does
    not state is not checked. Facts are plain values: numbers, strings, tuples of them.
    """

    family: str
    facts: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, family: str, /, **facts: Any) -> Space:
        """Make a space; lists become tuples, facts that are None are left out."""
        known = ((name, tuple(v) if isinstance(v, list) else v) for name, v in sorted(facts.items()) if v is not None)
        return cls(family, tuple(known))

    def differences(self, other: Space) -> list[tuple[str, Any, Any]]:
        """List the (fact, mine, theirs) that disagree; `family` stands for the family itself."""
        if self.family != other.family:
            return [("family", self.family, other.family)]
        theirs = dict(other.facts)
        return [(name, mine, theirs[name]) for name, mine in self.facts if name in theirs and theirs[name] != mine]

    def __str__(self) -> str:
        return f"{self.family}({', '.join(f'{name}={value}' for name, value in self.facts)})"


@dataclass(frozen=True, slots=True)
class Port:
    """What may travel through one input or output of a node.

    types     the alternatives that are accepted (inputs) or the one that is given (outputs)
    optional  an input that may stay unwired, or an output that may be absent
    space     the value space, or None when any will do
    doc       one sentence for `modelgraft components` and the editor
    several   an output of which a record has any number, by what it asks for, or an input that takes all that a record has
    """

    types: tuple[PortType, ...]
    optional: bool = False
    space: Space | None = None
    doc: str = ""
    several: str = ""

    @property
    def type(self) -> PortType:
        """The first type: the only one of an output."""
        return self.types[0]

    @property
    def tensor(self) -> Tensor | None:
        """The tensor alternative, if there is one."""
        return next((kind for kind in self.types if isinstance(kind, Tensor)), None)

    def bind(self, values: Mapping[str, int]) -> Port:
        """Replace axis names that have values."""
        return replace(self, types=tuple(t if isinstance(t, Modality) else t.bind(values) for t in self.types))

    def __str__(self) -> str:
        text = " | ".join(map(str, self.types))
        return f"optional[{text}]" if self.optional else text


def port(text: str | Port, *, space: Space | None = None, doc: str = "", several: str = "") -> Port:
    """Read a port type such as `"optional[float[batch tokens width]]"`.

    Raises PortSyntaxError, with the text and what was expected.
    """
    if isinstance(text, Port):
        return text
    parsed = _parse(text)
    return replace(parsed, space=space, doc=doc, several=several) if space is not None or doc or several else parsed


@lru_cache(maxsize=4096)
def _parse(text: str) -> Port:
    body = text.strip()
    optional = body.startswith("optional[") and body.endswith("]")
    if optional:
        body = body[len("optional[") : -1]
    return Port(tuple(_parse_type(part, text) for part in _split(body)), optional=optional)


def _split(body: str) -> Iterator[str]:
    """Cut at `|` outside brackets."""
    depth, start = 0, 0
    for index, letter in enumerate(body):
        depth += (letter == "[") - (letter == "]")
        if letter == "|" and depth == 0:
            yield body[start:index].strip()
            start = index + 1
    yield body[start:].strip()


_TYPE = re.compile(r"^([a-z][a-z0-9_]*)(?:\[(.*)\])?$", re.DOTALL)


def _parse_type(part: str, whole: str) -> PortType:
    match = _TYPE.match(part)
    if match is None:
        raise PortSyntaxError(f"port type '{whole}': cannot read '{part}'; write e.g. image, float[batch tokens 768], list[text]")
    name, inner = match.groups()
    if inner is None:
        if name in DTYPE_FAMILIES and name not in BOTH:
            raise PortSyntaxError(f"port type '{whole}': '{name}' needs axes, e.g. {name}[batch]")
        return Modality(name)
    if name == "list":
        return ListOf(_parse_type(inner.strip(), whole))
    if name not in DTYPE_FAMILIES:
        raise PortSyntaxError(f"port type '{whole}': '{name}[...]' is no dtype; the dtypes are {', '.join(DTYPE_FAMILIES)}")
    axes = tuple(_parse_axis(word, whole) for word in inner.split())
    if axes.count(None) > 1:
        raise PortSyntaxError(f"port type '{whole}': only one '...' can be told apart")
    return Tensor(name, axes)


_TERM = re.compile(r"([+-]?)(?:(\d+)\*)?(\d+|[a-z_][a-z0-9_]*)", re.IGNORECASE)


def _parse_axis(word: str, whole: str) -> Axis | None:
    if word == "...":
        return None
    constant, terms, position = 0, dict[str, int](), 0
    while position < len(word):
        match = _TERM.match(word, position)
        if match is None or (position and not match.group(1)):
            raise PortSyntaxError(f"port type '{whole}': cannot read the axis '{word}'; write a name, a size or a sum such as tokens+1")
        sign, factor, atom = match.groups()
        amount = int(factor or 1) * (-1 if sign == "-" else 1)
        if atom.isdigit():
            constant += amount * int(atom)
        else:
            terms[atom] = terms.get(atom, 0) + amount
        position = match.end()
    return Axis(tuple((name, factor) for name, factor in terms.items() if factor), constant)


@dataclass(frozen=True, slots=True)
class Ports:
    """The inputs and outputs of a component under one config, in order: the order in which its code takes them."""

    inputs: Mapping[str, Port] = field(default_factory=dict)
    outputs: Mapping[str, Port] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Mapping[str, Port]]:
        return iter((self.inputs, self.outputs))

    @classmethod
    def of(cls, inputs: Mapping[str, str | Port], outputs: Mapping[str, str | Port]) -> Ports:
        """Read the port texts."""
        return cls({k: port(v) for k, v in inputs.items()}, {k: port(v) for k, v in outputs.items()})
