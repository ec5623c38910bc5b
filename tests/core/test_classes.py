"""Dataclasses that are made quickly are those of the standard library: each is made both ways, and compared."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import FrozenInstanceError, field
from functools import partial
from typing import Any, ClassVar

import pytest

from modelgraft import classes

Make = Callable[..., Any]


def _plain(make: Make) -> list[type]:
    @make
    class Plain:
        """One."""

        x: int
        y: str = "a"
        z: list[int] = field(default_factory=list)
        known: ClassVar[int] = 3

    return [Plain]


def _frozen(make: Make) -> list[type]:
    @make(frozen=True, slots=True)
    class Frozen:
        """One."""

        x: int
        y: str = "a"
        z: Mapping[str, int] = field(default_factory=dict, repr=False, hash=False)
        w: float = field(default=0.5, compare=False)

    return [Frozen]


def _named(make: Make) -> list[type]:
    @make(frozen=True, slots=True, kw_only=True)
    class Named:
        """One."""

        y: str = "a"
        x: int

    return [Named]


def _open(make: Make) -> list[type]:
    @make(slots=True)
    class Open:
        """One."""

        x: int
        made: list[int] = field(default_factory=list, init=False)
        fixed: int = field(default=7, init=False)

        def __post_init__(self) -> None:
            self.made.append(self.x)

    return [Open]


def _own(make: Make) -> list[type]:
    @make(frozen=True, slots=True)
    class Own:
        """One."""

        x: int
        y: int = 2

        def __repr__(self) -> str:
            return "own"

        def __hash__(self) -> int:
            return 5

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Own)

    return [Own]


def _without(make: Make) -> list[type]:
    @make(frozen=True, slots=True, eq=False, repr=False)
    class Without:
        """One."""

        x: int

    return [Without]


def _empty(make: Make) -> list[type]:
    @make(frozen=True, slots=True)
    class Empty:
        """One."""

    return [Empty]


def _child(make: Make) -> list[type]:
    @make(frozen=True, slots=True)
    class Parent:
        """One."""

        x: int
        y: int = 1

    @make(frozen=True, slots=True)
    class Child(Parent):
        """Two."""

        y: int = 4
        z: int = 5

    class Plain(Child):
        """No dataclass of its own."""

    return [Parent, Child, Plain]


def _abstract(make: Make) -> list[type]:
    class Base(ABC):
        @abstractmethod
        def name(self) -> str: ...

    @make(slots=True)
    class Full(Base):
        """One."""

        x: int

        def name(self) -> str:
            return str(self.x)

    return [Full]


TABLE = [_plain, _frozen, _named, _open, _own, _without, _empty, _child, _abstract]
GIVEN: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((), {}), ((1,), {}), ((1, "b"), {}), ((), {"x": 1}), ((), {"x": 2, "y": "b"}), ((1,), {"y": "c"}), ((1, 2, {}), {}),
    ((1, 2, {}, 4), {}), ((1, 2, 3, 4, 5), {}), ((), {"q": 1}), ((1,), {"x": 1}),
]  # fmt: skip


def told(work: Callable[[], Any]) -> Any:
    """What something gives, or how it fails."""
    try:
        return work()
    except Exception as error:  # noqa: BLE001 to be compared
        return type(error), str(error)


def about(cls: type) -> list[Any]:
    """All that can be seen of a class and of its instances, without addresses."""
    has_repr = cls.__repr__ is not object.__repr__
    seen: list[Any] = [str(inspect.signature(cls)), getattr(cls, "__match_args__", None), cls.__hash__ is None, vars(cls).get("__slots__")]
    seen += [[(one.name, one.type, one.init, one.kw_only, one.compare) for one in dataclasses.fields(cls)], cls.__doc__, cls.__qualname__]
    for args, named in GIVEN:
        one, other = told(lambda: cls(*args, **named)), told(lambda: cls(*args, **named))  # noqa: B023 called at once
        if isinstance(one, tuple):
            seen.append(one)
            continue
        seen += [told(one.__repr__) if has_repr else "", one == other, one != other, one == 3]
        seen += [dataclasses.asdict(one), dataclasses.astuple(one), told(lambda: dataclasses.astuple(dataclasses.replace(one, x=9)))]  # noqa: B023
        seen += [dataclasses.astuple(copy.copy(one)), dataclasses.astuple(copy.deepcopy(one))]
        if cls.__hash__ is not object.__hash__:
            seen.append(told(lambda: hash(one)))  # noqa: B023
        for name in (one_of.name for one_of in dataclasses.fields(cls)):
            seen += [told(partial(setattr, one, name, 11)), getattr(one, name), told(partial(delattr, one, name)), hasattr(one, name)]
    return seen


@pytest.mark.parametrize("made", TABLE)
def test_a_class_is_what_the_standard_library_makes_of_it(made):
    """Its fields, its signature, its instances and how each fails."""
    for own, theirs in zip(made(classes.dataclass), made(dataclasses.dataclass), strict=True):
        assert about(own) == about(theirs)


@pytest.mark.parametrize("made", [made for made in TABLE if made is not _open])  # a child without slots never sees its default
@pytest.mark.parametrize("turn", [(classes.dataclass, dataclasses.dataclass), (dataclasses.dataclass, classes.dataclass)])
def test_either_kind_may_inherit_from_the_other(made, turn):
    """With the fields of both, frozen or not."""
    parent, child = turn

    def grown(first: Make, second: Make) -> list[Any]:
        base = made(first)[0]
        settings = {"frozen": base.__dataclass_params__.frozen, "kw_only": True}
        body = {"__annotations__": {"more": "int"}, "more": 8, "__module__": __name__, "__doc__": "more"}
        return about(second(**settings)(type("More", (base,), body)))

    assert grown(parent, child) == grown(child, child) == grown(dataclasses.dataclass, dataclasses.dataclass)


@pytest.mark.parametrize("make", [classes.dataclass, dataclasses.dataclass])
def test_a_class_that_cannot_be_is_refused_by_either(make):
    """With the same kind of error: a field without a default behind one with it, frozen and not, a list as a default."""

    def late() -> None:
        @make
        class _Late:
            x: int = 1
            y: int

    def thawed() -> None:
        (base,) = _frozen(make)

        @make
        class _Thawed(base):  # type: ignore[misc,valid-type]
            y: int = 1

    def shared() -> None:
        @make(slots=True)
        class _Shared:
            x: list[int] = []  # noqa: RUF012 what is tested

    with pytest.raises(TypeError, match="non-default argument 'y' follows default argument"):
        late()
    with pytest.raises(TypeError, match="cannot inherit non-frozen dataclass from a frozen one"):
        thawed()
    with pytest.raises(ValueError, match="mutable default"):
        shared()


def test_what_only_the_standard_library_makes_is_made_by_it():
    """Orders, weak references, and fields that `__init__` alone is given."""

    @classes.dataclass(order=True)
    class Ordered:
        x: int

    @classes.dataclass(slots=True, weakref_slot=True)
    class Weak:
        x: int

    @classes.dataclass
    class Given:
        x: dataclasses.InitVar[int]
        y: int = 0

        def __post_init__(self, x: int) -> None:
            self.y = x + 1

    assert Ordered(1) < Ordered(2)
    assert "__weakref__" in Weak.__slots__
    assert Given(4).y == 5


@classes.dataclass(frozen=True, slots=True)
class Kept:
    """One that can be found again by its name."""

    x: int
    y: tuple[int, ...] = ()


def test_a_frozen_one_is_pickled_and_not_changed():
    """Neither a field nor anything else of it."""
    one = Kept(1, (2, 3))
    assert pickle.loads(pickle.dumps(one)) == one
    for name in ("x", "anything"):
        with pytest.raises(FrozenInstanceError, match=f"cannot assign to field '{name}'"):
            setattr(one, name, 1)


def test_one_that_holds_itself_can_be_shown():
    """As the standard library shows it."""

    @classes.dataclass(slots=True)
    class Loop:
        x: Any

    one = Loop(1)
    one.x = one
    assert repr(one).endswith(".Loop(x=...)")


def test_threads_that_make_the_first_instances_at_once_all_get_one():
    """What is compiled at the first call may be compiled twice, and is right each time."""
    for _ in range(20):
        (cls,) = _frozen(classes.dataclass)
        found, start = list[Any](), threading.Barrier(4)

        def work(cls: type = cls, start: threading.Barrier = start, found: list[Any] = found) -> None:
            start.wait()
            found.append(cls(1, y="b"))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [cls(1, "b")] * 4
