"""Vectors that were made elsewhere, such as FROMAGe's cc3m_embeddings.pkl: read without carrying out what a pickle orders.

Such a file is a pickle of `{"paths": [...], "embeddings": ...}`, the vectors an array of numpy, or a list of them. A pickle is a list of
orders, which may call anything. Here a small machine follows those that make texts, numbers, lists and mappings; of what it should
call it knows the three functions that rebuild an array, and of these it takes shape, dtype and bytes. All else is refused.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelgraft.plugin import InputError

ENDING = ".pkl"
MOST_BYTES = 16 << 30  # the published one has three million vectors of 256 numbers
ARRAYS = {(f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")}
BUFFERS = {(f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")}
NAMES = {*ARRAYS, *BUFFERS, ("numpy", "ndarray"), ("numpy", "dtype")}
FLOATS = {"f2": np.float16, "f4": np.float32, "f8": np.float64}
MARK = object()


@dataclass(slots=True)
class _Name:
    """A class or function that the file names."""

    module: str
    name: str

    @property
    def pair(self) -> tuple[str, str]:
        return self.module, self.name


@dataclass(slots=True)
class _Made:
    """What an array or a dtype is rebuilt from: a name, its arguments, and its state."""

    by: _Name
    given: tuple[Any, ...]
    state: tuple[Any, ...] = field(default=())


def read_given(path: Path) -> tuple[list[str], NDArray[np.float32]]:
    """The paths and the vectors, float32[paths width], of a file. Raises InputError for one that holds or orders anything else."""
    if path.stat().st_size > MOST_BYTES:
        raise InputError(f"'{path}' has {path.stat().st_size:,} bytes; at most {MOST_BYTES:,} are read")
    try:
        with path.open("rb") as file:
            found = _Machine().follow(_orders(file))
        if not isinstance(found, dict):
            raise ValueError(f"it holds a {type(found).__name__}")  # noqa: TRY004 all that is refused is told in one way
        paths, vectors = found["paths"], _vectors(found["embeddings"])
        if not isinstance(paths, list) or not all(isinstance(one, str) for one in paths) or len(paths) != len(vectors):
            raise ValueError(f"it has {len(vectors)} vectors, and its paths are not as many texts")
    except (ValueError, LookupError, TypeError, AttributeError, EOFError, MemoryError) as error:
        why = str(error).partition("\n")[0]
        wanted = (
            'wanted: a pickle of {"paths": [text, ...], "embeddings": array of numpy or list of them}, and nothing that has to be called'
        )
        raise InputError(f"'{path}' cannot be read as vectors: {why}; {wanted}") from error
    return paths, vectors


def _orders(file: Any) -> Iterator[tuple[str, Any]]:
    for order, argument, _ in pickletools.genops(file):
        yield order.name, argument


def _vectors(found: Any) -> NDArray[np.float32]:
    """All vectors as one array."""
    if isinstance(found, list):
        if not found:
            raise ValueError("it has no vectors")
        return np.stack([_array(one).reshape(-1) for one in found]).astype(np.float32)
    whole = _array(found)
    if whole.ndim != 2 or not whole.size:
        raise ValueError(f"its vectors are an array of the shape {list(whole.shape)}")
    return whole.astype(np.float32)


def _array(found: Any) -> NDArray[Any]:
    """An array from what it would have been rebuilt from."""
    if not isinstance(found, _Made):
        raise ValueError(f"a vector is a {type(found).__name__}")  # noqa: TRY004 as above
    if found.by.pair in BUFFERS:
        raw, dtype, shape, order = found.given
        is_turned = order == "F"
    else:
        _, shape, dtype, is_turned, raw = found.state
    numbers = np.frombuffer(raw, _dtype(dtype))
    if not all(type(side) is int and side >= 0 for side in shape) or math.prod(shape) != numbers.size:
        raise ValueError(f"an array of the shape {list(shape)} has {numbers.size} numbers")
    return numbers.reshape(shape, order="F" if is_turned else "C")


def _dtype(found: Any) -> Any:  # Any: a dtype of numpy
    if not isinstance(found, _Made) or found.by.pair != ("numpy", "dtype") or found.given[0] not in FLOATS:
        raise ValueError("its vectors are no float numbers")
    return np.dtype(FLOATS[found.given[0]]).newbyteorder(found.state[1] if found.state and found.state[1] in "<>" else "=")


class _Machine:
    """Follows the orders of a pickle that make plain values."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def follow(self, orders: Iterator[tuple[str, Any]]) -> Any:
        """What the orders make. Raises ValueError for one that is not known."""
        for name, argument in orders:
            if name == "STOP":
                return self.stack.pop()
            if name in _PLAIN:
                self.stack.append(argument)
            elif name in _VALUES:
                self.stack.append(_VALUES[name]())
            elif name in _WORK:
                _WORK[name](self, argument)
            elif name not in ("PROTO", "FRAME"):
                raise ValueError(f"it orders {name}")
        raise ValueError("it has no end")

    def _above_mark(self) -> list[Any]:
        place = next(at for at in range(len(self.stack) - 1, -1, -1) if self.stack[at] is MARK)
        found, self.stack[place:] = self.stack[place + 1 :], []
        return found

    def _tuple(self, count: int) -> None:
        found = tuple(self.stack[len(self.stack) - count :])
        self.stack[len(self.stack) - count :] = [found]

    def _extend(self, values: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise ValueError("it adds to what is no list")  # noqa: TRY004 as above
        self.stack[-1] += values

    def _set(self, pairs: list[Any]) -> None:
        keys = pairs[::2]
        if not isinstance(self.stack[-1], dict) or not all(isinstance(key, str) for key in keys):
            raise ValueError("it has a mapping whose keys are not texts")
        self.stack[-1].update(zip(keys, pairs[1::2], strict=True))

    def _name(self, module: Any, name: Any) -> None:
        if (module, name) not in NAMES:
            raise ValueError(f"it calls {module}.{name}")
        self.stack.append(_Name(module, name))

    def _call(self) -> None:
        given, by = self.stack.pop(), self.stack.pop()
        if not isinstance(by, _Name) or not isinstance(given, tuple):
            raise ValueError("it calls what is no function")  # noqa: TRY004 as above
        self.stack.append(_Made(by, given))

    def _build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], _Made) or not isinstance(state, tuple):
            raise ValueError("it sets the state of what is no array")  # noqa: TRY004 as above
        self.stack[-1].state = state

    def _swapped(self) -> tuple[Any, Any]:
        name, module = self.stack.pop(), self.stack.pop()
        return module, name


_PLAIN = frozenset({
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "BININT", "BININT1",
    "BININT2", "LONG1",
})  # fmt: skip
_VALUES: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple,
    "MARK": lambda: MARK,
}  # fmt: skip
_WORK: dict[str, Callable[[_Machine, Any], None]] = {
    "MEMOIZE": lambda machine, _: machine.memo.__setitem__(len(machine.memo), machine.stack[-1]),
    "BINPUT": lambda machine, place: machine.memo.__setitem__(place, machine.stack[-1]),
    "LONG_BINPUT": lambda machine, place: machine.memo.__setitem__(place, machine.stack[-1]),
    "BINGET": lambda machine, place: machine.stack.append(machine.memo[place]),
    "LONG_BINGET": lambda machine, place: machine.stack.append(machine.memo[place]),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine._above_mark())),
    "TUPLE1": lambda machine, _: machine._tuple(1),
    "TUPLE2": lambda machine, _: machine._tuple(2),
    "TUPLE3": lambda machine, _: machine._tuple(3),
    "APPEND": lambda machine, _: machine._extend([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine._extend(machine._above_mark()),
    "SETITEM": lambda machine, _: machine._set([machine.stack.pop(-2), machine.stack.pop()]),
    "SETITEMS": lambda machine, _: machine._set(machine._above_mark()),
    "GLOBAL": lambda machine, names: machine._name(*str(names).split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine._name(*machine._swapped()),
    "REDUCE": lambda machine, _: machine._call(),
    "BUILD": lambda machine, _: machine._build(),
}
