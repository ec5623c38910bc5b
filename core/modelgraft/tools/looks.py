"""What components are like before they stand in a graph: their ports under a typical config, and which keys change them.

All of it is found by trying: light code of plugins is asked with other values, and what it refuses is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from modelgraft.kernel.checking.matching import dtypes_meet, fits
from modelgraft.kernel.shelf.registry import Registry
from modelgraft.kernel.words.errors import InputError, choices, nearest
from modelgraft.kernel.words.guard import contained, said
from modelgraft.kernel.words.kinds import Component, checked_ports, dimension_fields
from modelgraft.kernel.words.ports import DTYPE_FAMILIES, ListOf, Modality, Port, Ports, PortSyntaxError, PortType, Tensor, port
from modelgraft.tools.recorded import uses_of

TENSOR = "tensor"  # the word for tensors of any numbers
TEMPLATE = "{first} and {second}"  # what is tried for a text: where its fields become inputs, it is a template
PortsByName = Mapping[str, Port]


@dataclass(frozen=True, slots=True)
class Change:
    """What another value of one config key makes of the ports: those that differ, None for one that is gone."""

    key: str
    value: str
    inputs: Mapping[str, Port | None]
    outputs: Mapping[str, Port | None]

    def __str__(self) -> str:
        return f"{self.key}: {self.value}"


@dataclass(frozen=True, slots=True)
class Look:
    """The ports of a component under a typical config.

    basis    which config that is: "the default config", "preset:x#part", or "an example: ..."
    given    what that config says beside its defaults
    changes  what other values of its keys make of the ports
    error    why no ports are known;  is_refused  no config that was tried holds together, so that its code was not even asked
    """

    inputs: PortsByName = field(default_factory=lambda: MappingProxyType({}))
    outputs: PortsByName = field(default_factory=lambda: MappingProxyType({}))
    basis: str = ""
    changes: tuple[Change, ...] = ()
    error: str = ""
    given: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    is_refused: bool = False


def look(component: Component, registry: Registry) -> Look:
    """Look at a component: its default config, else a preset that it serves, else made-up values for what it must be told."""
    refused, failed = "", ""
    for basis, given in _typical(component, registry):
        try:
            ports = _ports(component, given)
        except ValidationError as error:
            refused = refused or "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}".removeprefix(": ") for one in error.errors())
        except Exception as error:  # noqa: BLE001 light code of a plugin may raise anything
            failed = failed or said(error)
        else:
            return Look(ports.inputs, ports.outputs, basis, tuple(_changes(component, given, ports)), given=given)
    return Look(error=failed or refused, is_refused=not failed)


def _ports(component: Component, given: Mapping[str, Any]) -> Ports:
    with contained():
        return checked_ports(component.config.model_validate(dict(given)).ports())


def _typical(component: Component, registry: Registry) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield "the default config", {}
    for use in uses_of(component, registry):
        yield use.source, use.values
    required = {name: _example(info) for name, info in component.config.model_fields.items() if info.is_required()}
    yield _named(required), required
    for name, info in component.config.model_fields.items():  # one that its author wants told more than its fields say
        for value in _others(info.annotation, None, is_dimension=name in dimension_fields(component.config)):
            yield _named({**required, name: value}), {**required, name: value}


def _example(info: FieldInfo) -> Any:
    """The first of the examples that its author gives, or one that is made up."""
    return info.examples[0] if info.examples else example_of(info.annotation)


def _named(given: Mapping[str, Any]) -> str:
    return f"an example: {', '.join(f'{name}: {_as_written(value)}' for name, value in given.items())}"


def example_of(annotation: Any) -> Any:
    """A value of a type, made up."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)[0]
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return next(iter(annotation))
    return {str: "{text}", int: 8, float: 1.0, bool: False}.get(annotation, 1)


# -- what changes the ports ---------------------------------------------------------------------------------------------


def _changes(component: Component, given: Mapping[str, Any], ports: Ports) -> Iterator[Change]:
    """Try other values of each key, one at a time; the first value of a key that makes the same ports as another is enough."""
    for name, info in component.config.model_fields.items():
        seen: list[tuple[Mapping[str, Port | None], Mapping[str, Port | None]]] = []
        now = given.get(name, None if info.is_required() else info.get_default(call_default_factory=False))
        for value in _others(info.annotation, now, is_dimension=name in dimension_fields(component.config)):
            other = _tried(component, {**given, name: value})
            if other is None:
                continue
            differing = _differing(ports.inputs, other.inputs), _differing(ports.outputs, other.outputs)
            if any(differing) and differing not in seen:
                seen.append(differing)
                yield Change(name, _as_written(value), *differing)


def _tried(component: Component, given: Mapping[str, Any]) -> Ports | None:
    """The ports under a config; None where its values do not go together."""
    try:
        return _ports(component, given)
    except Exception:  # noqa: BLE001 light code of a plugin may raise anything
        return None


def _others(annotation: Any, now: Any, *, is_dimension: bool) -> Iterator[Any]:
    """Other values that a key may have; none for a dimension, which changes sizes alone."""
    for kind in () if is_dimension else _alternatives(annotation):
        yield from (value for value in (*_choices(kind), *_plain(kind, now), *_several(kind)) if value != now)


def _choices(kind: Any) -> tuple[Any, ...]:
    """Each word of a choice."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    return tuple(kind) if isinstance(kind, type) and issubclass(kind, Enum) else ()


def _plain(kind: Any, now: Any) -> tuple[Any, ...]:
    """The other truth, another number, a template."""
    if kind is bool:
        return (not now,)
    if kind is int and not isinstance(now, bool):
        return (now + 1 if isinstance(now, int) else 2,)
    if kind is float and now is None:
        return (1.0,)
    return (TEMPLATE,) if kind is str else ()


def _several(kind: Any) -> tuple[Any, ...]:
    """Words in a list, or names with something each."""
    if get_origin(kind) in (list, tuple) and get_args(kind)[:1] == (str,):
        return (["one", "two"],)
    if get_origin(kind) is dict and get_args(kind)[:1] == (str,):
        return (dict.fromkeys(("first", "second"), example_of(_alternatives(get_args(kind)[1])[0])),)
    return ()


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    """The types that a key takes, without what annotates them."""
    inner = getattr(annotation, "__metadata__", None) and annotation.__origin__
    if inner:
        return _alternatives(inner)
    if get_origin(annotation) in (Union, UnionType):
        return tuple(kind for part in get_args(annotation) for kind in _alternatives(part))
    return (annotation,)


def _differing(before: PortsByName, after: PortsByName) -> dict[str, Port | None]:
    names = [*before, *(name for name in after if name not in before)]
    return {name: after.get(name) for name in names if str(before.get(name)) != str(after.get(name))}


def _as_written(value: Any) -> str:
    """A value as a graph has it."""
    plain = value.value if isinstance(value, Enum) else value
    return str(plain).lower() if isinstance(plain, bool) else f"'{plain}'" if isinstance(plain, str) and " " in plain else str(plain)


# -- finding by type ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Match:
    """A port that was looked for.

    under  the config value that it needs, as `key: value`; "" under the typical config
    """

    name: str
    port: Port
    under: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.port}" + (f" (with {self.under})" if self.under else "")


def read_type(text: str, registry: Registry) -> PortType:
    """Read the type that is looked for: a port type, a dtype alone for tensors of any shape, or "tensor". Raises InputError."""
    if text in DTYPE_FAMILIES or text == TENSOR:
        return Tensor(text, (None,))
    try:
        kind = port(text).type
    except PortSyntaxError as error:
        raise InputError(str(error)) from error
    inner: PortType = kind
    while isinstance(inner, ListOf):
        inner = inner.item
    if isinstance(inner, Modality) and inner.name not in registry.record_types:
        there = {*registry.record_types, *DTYPE_FAMILIES, TENSOR}
        raise InputError(f"no port is of type '{text}'; there are: {choices(there, most=40)}. {nearest(text, there)}".rstrip())
    return kind


def giving(seen: Look, wanted: PortType) -> list[Match]:
    """The outputs that give a type."""
    return _matches(seen.outputs, [(change, change.outputs) for change in seen.changes], lambda one: _agree(one.type, wanted))


def taking(seen: Look, given: PortType) -> list[Match]:
    """The inputs that take a type. One that takes any object takes it as well, and is not listed."""
    return _matches(
        seen.inputs, [(change, change.inputs) for change in seen.changes], lambda one: any(_agree(given, kind) for kind in one.types)
    )


def _matches(ports: PortsByName, changes: Iterable[tuple[Change, Mapping[str, Port | None]]], fitting: Any) -> list[Match]:
    found = [Match(name, one) for name, one in ports.items() if fitting(one)]
    known = {(match.name, str(match.port)) for match in found}
    for change, after in changes:
        for name, one in after.items():
            if one is not None and fitting(one) and (name, str(one)) not in known:
                known.add((name, str(one)))
                found.append(Match(name, one, str(change)))
    return found


def _agree(one: PortType, other: PortType) -> bool:
    """Whether two types mean the same, as far as both say: the dtype, and the number of axes."""
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return isinstance(one, type(other)) and fits(one, other) and fits(other, one)
    same_rank = None in one.axes or None in other.axes or len(one.axes) == len(other.axes)
    return same_rank and (TENSOR in (one.dtype, other.dtype) or dtypes_meet(one.dtype, other.dtype))
