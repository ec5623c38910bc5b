"""Dataclasses as the standard library makes them, in a seventh of the time: a start makes more than two hundred.

What the standard library writes and compiles for a class, five functions of which most are never called, is here a handful of functions
that all classes share; `__init__`, which must be fast, is compiled when the first instance is made. A class is a dataclass in every
other way: fields, `replace`, `asdict`, pickles, patterns, signatures, inheritance from and by those of the standard library.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, FrozenInstanceError, field, replace
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass", "field", "replace"]

FIELDS, PARAMS = "__dataclass_fields__", "__dataclass_params__"
OURS = frozenset({"repr", "eq", "frozen", "kw_only", "slots"})  # settings; for others the standard library is asked
METHODS = ("__setattr__", "__delattr__", "__getstate__", "__setstate__")  # of a frozen class

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(cls: type | None = None, /, **settings: bool) -> Any:  # Any: a class, or what makes it a dataclass
        """See dataclasses.dataclass."""

        def made(cls: type) -> type:
            return _made(cls, **settings) if _is_plain(cls, settings) else dataclasses.dataclass(**settings)(cls)

        return made if cls is None else made(cls)


def _is_plain(cls: type, settings: Mapping[str, bool]) -> bool:
    """Whether nothing is asked for that is made by the standard library alone, errors included."""
    own, frozen, notes = vars(cls), settings.get("frozen", False), inspect.get_annotations(cls)
    if not settings.keys() <= OURS or any("InitVar" in str(note) or "KW_ONLY" in str(note) for note in notes.values()):
        return False
    if any(getattr(base, PARAMS).frozen is not frozen for base in cls.__mro__[1:] if FIELDS in vars(base)):
        return False
    if any(isinstance(value, Field) and name not in notes for name, value in own.items()):
        return False
    return "__slots__" not in own and not (frozen and any(name in own for name in METHODS))


def _made(cls: type, *, repr: bool = True, eq: bool = True, frozen: bool = False, kw_only: bool = False, slots: bool = False) -> type:  # noqa: A002 as there
    """The class as a dataclass; another class where it gets slots."""
    shadow = _shadow(cls, kw_only=kw_only)
    found: dict[str, Field[Any]] = {}
    for base in cls.__mro__[-1:0:-1]:
        found.update(getattr(base, FIELDS, {}))
    found.update(vars(shadow)[FIELDS])
    for name in vars(shadow)[FIELDS]:
        if isinstance(vars(cls).get(name), Field):
            if name in vars(shadow):
                setattr(cls, name, vars(shadow)[name])
            else:
                delattr(cls, name)
    setattr(cls, FIELDS, found)
    fields = dataclasses.fields(cls)
    _refuse_order(fields)
    params = getattr(shadow, PARAMS)
    params.init, params.repr, params.eq, params.frozen = True, repr, eq, frozen
    setattr(cls, PARAMS, params)
    _set_new(cls, "__match_args__", tuple(one.name for one in fields if one.init and not one.kw_only))
    if hasattr(shadow, "__replace__"):  # of Python 3.13 and newer
        _set_new(cls, "__replace__", shadow.__replace__)
    if slots:
        cls = _slotted(cls, [one.name for one in fields])
    _add_methods(cls, fields, repr=repr, eq=eq, frozen=frozen)
    if frozen and slots:
        _set_new(cls, "__getstate__", _state_of)
        _set_new(cls, "__setstate__", _set_state)
    if hasattr(cls, "__abstractmethods__"):
        from abc import update_abstractmethods

        update_abstractmethods(cls)
    return cls


def _shadow(cls: type, *, kw_only: bool) -> type:
    """A class with the fields that a class adds to its bases, which the standard library makes of its annotations; no code is compiled."""
    notes = inspect.get_annotations(cls)
    own = {name: vars(cls)[name] for name in notes if name in vars(cls)}
    shadow = type(cls.__name__, (), {"__annotations__": notes, "__module__": cls.__module__, "__doc__": "fields", **own})
    return dataclasses.dataclass(init=False, repr=False, eq=False, match_args=False, kw_only=kw_only)(shadow)


def _refuse_order(fields: Iterable[Field[Any]]) -> None:
    """Raise TypeError as the standard library does for a field without a default behind one that has one."""
    has_default = False
    for one in fields:
        if one.init and not one.kw_only:
            if one.default is not MISSING or one.default_factory is not MISSING:
                has_default = True
            elif has_default:
                raise TypeError(f"non-default argument {one.name!r} follows default argument")


def _set_new(cls: type, name: str, value: Any) -> None:
    if name not in vars(cls):
        setattr(cls, name, value)


def _slotted(cls: type, names: Iterable[str]) -> type:
    """The class again, with a slot for each field that no base has one for."""
    inherited = {name for base in cls.__mro__[1:-1] for name in _slots_of(base)}
    names = tuple(names)
    body = {name: value for name, value in vars(cls).items() if name not in names and name not in {"__dict__", "__weakref__"}}
    body["__slots__"] = tuple(name for name in names if name not in inherited)
    made = type(cls)(cls.__name__, cls.__bases__, body)
    made.__qualname__ = cls.__qualname__
    return made


def _slots_of(base: type) -> Iterable[str]:
    slots = vars(base).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else slots


# -- methods ---------------------------------------------------------------------------------------------------------------


def _add_methods(cls: type, fields: tuple[Field[Any], ...], *, repr: bool, eq: bool, frozen: bool) -> None:  # noqa: A002 as there
    own = vars(cls)
    has_hash = "__hash__" in own and not (own["__hash__"] is None and "__eq__" in own)
    if "__init__" not in own:
        made = _when_called(cls, "__init__", lambda: _init_of(cls, fields, frozen=frozen))
        _set_new(cls, "__signature__", _Signature(cls, made))
    if repr:
        _set_new(cls, "__repr__", _repr_of([one.name for one in fields if one.repr]))
    if eq:
        if "__eq__" not in own:
            _when_called(cls, "__eq__", lambda: _eq_of(cls, [one.name for one in fields if one.compare]))
        if not has_hash and frozen:
            hashed = [one.name for one in fields if (one.compare if one.hash is None else one.hash)]
            _when_called(cls, "__hash__", lambda: _hash_of(cls, hashed))
        elif not has_hash:
            cls.__hash__ = None  # type: ignore[assignment]
    if frozen:
        cls.__setattr__, cls.__delattr__ = _frozen(cls, frozenset(one.name for one in fields))  # type: ignore[method-assign,assignment]


def _repr_of(names: list[str]) -> Callable[[Any], str]:
    @recursive_repr()
    def __repr__(self: Any) -> str:  # noqa: N807
        return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

    return __repr__


def _frozen(cls: Any, names: frozenset[str]) -> tuple[Callable[[Any, str, Any], None], Callable[[Any, str], None]]:
    def __setattr__(self: Any, name: str, value: Any) -> None:  # noqa: N807
        if type(self) is cls or name in names:
            raise FrozenInstanceError(f"cannot assign to field {name!r}")
        super(cls, self).__setattr__(name, value)

    def __delattr__(self: Any, name: str) -> None:  # noqa: N807
        if type(self) is cls or name in names:
            raise FrozenInstanceError(f"cannot delete field {name!r}")
        super(cls, self).__delattr__(name)

    return __setattr__, __delattr__


def _state_of(self: Any) -> list[Any]:
    return [getattr(self, one.name) for one in dataclasses.fields(self)]


def _set_state(self: Any, state: list[Any]) -> None:
    for one, value in zip(dataclasses.fields(self), state, strict=True):
        object.__setattr__(self, one.name, value)  # the class is frozen


# -- what is compiled, when it is first called -----------------------------------------------------------------------------


def _when_called(cls: type, name: str, compiled: Callable[[], Any]) -> Callable[[], Any]:
    """Give a class a method that is compiled when it is first called; gives what compiles it, or has."""

    def made() -> Any:
        if vars(cls)[name] is first:
            setattr(cls, name, compiled())
        return vars(cls)[name]

    def first(*given: Any, **named: Any) -> Any:
        return made()(*given, **named)

    first.__name__, first.__qualname__, first.__module__ = name, f"{cls.__qualname__}.{name}", cls.__module__
    setattr(cls, name, first)
    return made


class _Made:
    """What stands in a signature for a value that is made anew by each call."""

    def __repr__(self) -> str:
        return "<factory>"


_MADE = _Made()


class _Signature:
    """What a class is called with, worked out when somebody asks."""

    def __init__(self, cls: type, made: Callable[[], Any]) -> None:
        self.cls, self.made = cls, made

    def __get__(self, instance: object, owner: type) -> inspect.Signature:
        if instance is not None or owner.__init__ is not vars(self.cls)["__init__"]:  # type: ignore[misc]
            raise AttributeError("__signature__")
        found = inspect.signature(self.made())
        return found.replace(parameters=[*found.parameters.values()][1:])


def _compiled(cls: type, name: str, takes: Iterable[str], lines: Iterable[str], names: dict[str, Any]) -> Any:
    text = f"def {name}({', '.join(takes)}):\n " + "\n ".join(lines)
    exec(text, names)  # noqa: S102 names of fields alone, which are words of Python
    made = names[name]
    made.__qualname__, made.__module__ = f"{cls.__qualname__}.{name}", cls.__module__
    return made


def _tuple(one: str, names: Iterable[str]) -> str:
    return f"({''.join(f'{one}.{name},' for name in names)})"


def _eq_of(cls: type, names: list[str]) -> Any:
    same = f"return {_tuple('self', names)} == {_tuple('other', names)} if other.__class__ is self.__class__ else NotImplemented"
    return _compiled(cls, "__eq__", ("self", "other"), [same], {})


def _hash_of(cls: type, names: list[str]) -> Any:
    return _compiled(cls, "__hash__", ("self",), [f"return hash({_tuple('self', names)})"], {})


def _init_of(cls: type, fields: tuple[Field[Any], ...], *, frozen: bool) -> Any:
    names: dict[str, Any] = {"__made": _MADE, "__set": object.__setattr__}
    given = sorted((one for one in fields if one.init), key=lambda one: bool(one.kw_only))
    takes, lines, starred = ["self"], list[str](), False
    for one in given:
        if one.kw_only and not starred:
            takes, starred = [*takes, "*"], True
        takes.append(_parameter(one, names))
    for one in fields:
        if (value := _value(one, names, slots="__slots__" in vars(cls))) is not None:
            lines.append(f"__set(self, {one.name!r}, {value})" if frozen else f"self.{one.name} = {value}")
    if hasattr(cls, "__post_init__"):
        lines.append("self.__post_init__()")
    made = _compiled(cls, "__init__", takes, lines or ["pass"], names)
    made.__annotations__ = {**{one.name: one.type for one in given}, "return": None}
    return made


def _parameter(one: Field[Any], names: dict[str, Any]) -> str:
    if one.default is not MISSING:
        names[f"__default_{one.name}"] = one.default
        return f"{one.name}=__default_{one.name}"
    return f"{one.name}=__made" if one.default_factory is not MISSING else one.name


def _value(one: Field[Any], names: dict[str, Any], *, slots: bool) -> str | None:
    """What a field is set to; None: to nothing, its default is that of the class."""
    if one.default_factory is not MISSING:
        names[f"__new_{one.name}"] = one.default_factory
        made = f"__new_{one.name}()"
        return f"{made} if {one.name} is __made else {one.name}" if one.init else made
    if one.init:
        return one.name
    if slots and one.default is not MISSING:
        names[f"__default_{one.name}"] = one.default
        return f"__default_{one.name}"
    return None
