"""Whether a file that torch.save wrote can be read at all within bounds: looked at as a list of orders, of which none is carried out.

Reading tensors alone runs no code, and still carries out what a file orders: fifty megabytes of marks, or a tuple that holds
itself twice, thirty times over, keep a reader busy for hours. Files of weights nest little and order what their tensors need.
"""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from modelgraft.sources.headers import damaged

MOST_ORDERS = 5_000_000  # some thirty for each tensor: above a model of 100,000 tensors
MOST_BYTES = 256 << 20  # of the orders in an archive, beside which the tensors lie
MOST_MARKS = 1_000  # open at once: a list within a list opens one
MOST_DEPTH = 64  # of what holds what: a state within a state within a checkpoint is three
PARTS = 5  # of a file that is no archive: a number, a version, the machine, the object, the keys of its storages; then its tensors

_GATHER = frozenset({"TUPLE", "LIST", "DICT", "FROZENSET", "INST", "OBJ"})  # make one thing of all above the last mark
_FILL = frozenset({"APPENDS", "SETITEMS", "ADDITEMS"})  # put all above the last mark into the thing below it
_MAKE = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "REDUCE": 2, "NEWOBJ": 2, "NEWOBJ_EX": 3, "BINPERSID": 1}  # of so many things
_REMEMBER, _RECALL = frozenset({"BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"}), frozenset({"BINGET", "LONG_BINGET", "GET"})
_PUT = {"APPEND": 1, "SETITEM": 2, "BUILD": 1}  # so many things into the one below


def check(path: Path) -> None:
    """Raise SourceError `source-damaged` for a file whose orders have no end within bounds, or are no orders."""
    try:
        with path.open("rb") as file:
            for orders in _parts(path, file):
                _Depths().follow(orders)
    except (ValueError, EOFError, IndexError, KeyError, NotImplementedError, zipfile.BadZipFile, OverflowError) as error:
        raise damaged(path, f"cannot be read as tensors: {type(error).__name__}: {str(error).partition(chr(10))[0]}") from error


def _parts(path: Path, file: IO[bytes]) -> Iterator[IO[bytes]]:
    """The lists of orders in a file, in the order in which they are read."""
    if file.read(2) == b"PK":
        with zipfile.ZipFile(path) as archive:
            name = next((name for name in archive.namelist() if name.endswith("data.pkl")), None)
            if name is None:
                raise ValueError("the archive holds no data.pkl")
            if (size := archive.getinfo(name).file_size) > MOST_BYTES:
                raise ValueError(f"its {name} has {size:,} bytes; at most {MOST_BYTES:,} are read")
            with archive.open(name) as orders:
                yield orders
        return
    file.seek(0)
    for _ in range(PARTS):
        if file.peek(1)[:1] != b"\x80":  # type: ignore[attr-defined]  # of a buffered file
            return
        yield file


class _Depths:
    """How deep each thing on the stack of a reader holds others; nothing is made but numbers."""

    def __init__(self) -> None:
        self.stack, self.marks, self.memo = list[int](), list[int](), dict[Any, int]()

    def follow(self, orders: IO[bytes]) -> None:
        """Go through one list of orders."""
        for count, (order, argument, _) in enumerate(pickletools.genops(orders)):
            if count > MOST_ORDERS:
                raise ValueError(f"it gives more than {MOST_ORDERS:,} orders")
            self._carry_out(order.name, argument)

    def _carry_out(self, name: str, argument: Any) -> None:  # Any: what an order names
        if name == "MARK":
            if len(self.marks) >= MOST_MARKS:
                raise ValueError(f"it opens more than {MOST_MARKS:,} lists within each other")
            self.marks.append(len(self.stack))
        elif name in _GATHER:
            self._make(len(self.stack) - self.marks.pop())
        elif name in _FILL:
            self._put(len(self.stack) - self.marks.pop())
        elif name in _MAKE:
            self._make(_MAKE[name])
        elif name in _PUT:
            self._put(_PUT[name])
        elif name in _REMEMBER or name in _RECALL:
            self._remember(name, argument)
        elif name not in ("PROTO", "FRAME", "STOP"):
            self._move(name)

    def _remember(self, name: str, argument: Any) -> None:
        if name in _RECALL:
            self.stack.append(self.memo[argument])
        else:
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = self.stack[-1]

    def _move(self, name: str) -> None:
        """Take the last thing off, double it, or put a plain one on."""
        if name == "POP":
            self.stack.pop()
        elif name == "POP_MARK":
            del self.stack[self.marks.pop() :]
        elif name == "STACK_GLOBAL":
            self.stack[-2:] = [0]
        else:
            self.stack.append(self.stack[-1] if name == "DUP" else 0)

    def _make(self, count: int) -> None:
        """Take things off and put what holds them on."""
        self.stack.append(self._above(count) + 1)

    def _put(self, count: int) -> None:
        """Take things off and into the one below."""
        depth = self._above(count) + 1
        self.stack[-1] = max(self.stack[-1], depth)

    def _above(self, count: int) -> int:
        """Take so many things off; gives how deep the deepest is."""
        taken = [self.stack.pop() for _ in range(count)]
        depth = max(taken, default=-1)
        if depth >= MOST_DEPTH:
            raise ValueError(f"it holds things in things, more than {MOST_DEPTH} deep")
        return depth
