"""The layout of a CTranslate2 `model.bin`: variables by name, read as numpy arrays that are mapped from the file.

    version of the layout, name of the model's kind, its revision       integers are little endian
    number of variables, then each: name, axes, sizes, dtype, number of bytes, bytes
    number of aliases, then each: name, name of the variable that it stands for
A string is its length with the closing zero (2 bytes), its bytes and the zero.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

VERSIONS = range(4, 7)  # 4 brought the dtype of each variable; 6 is the newest
DTYPES = ("<f4", "<i1", "<i2", "<i4", "<f2")
MOST_VARIABLES = 1_000_000
MOST_AXES = 8


@dataclass(frozen=True, slots=True)
class Stored:
    """A variable in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int


@dataclass(frozen=True, slots=True)
class CTranslate2File:
    """The variables of a file; aliases are listed under their own names."""

    path: Path
    kind: str
    variables: Mapping[str, Stored]

    def scalar(self, name: str) -> int:
        """A variable that is one whole number. Raises KeyError when there is none of this name."""
        code = {"<i1": "<b", "<i2": "<h", "<i4": "<i"}[self.variables[name].dtype]
        with self.path.open("rb") as file:
            file.seek(self.variables[name].start)
            found: int = struct.unpack(code, file.read(struct.calcsize(code)))[0]
        return found

    def array(self, name: str) -> np.ndarray:
        """One variable, mapped. Raises KeyError when there is none of this name."""
        import numpy as np

        stored = self.variables[name]
        mapped = np.memmap(self.path, dtype=stored.dtype, mode="r", offset=stored.start, shape=(math.prod(stored.shape),))
        return mapped.reshape(stored.shape)


def read(path: Path) -> CTranslate2File:
    """List the variables. Raises ValueError with what is wrong."""
    if path.stat().st_size == 0:
        raise ValueError("it is empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        reader = _Reader(content)
        version = reader.number("I")
        if version not in VERSIONS:
            raise ValueError(
                f"it starts with {version}, which is no version of the CTranslate2 layout that is read ({VERSIONS[0]} to {VERSIONS[-1]})"
            )
        kind, _revision = reader.string(), reader.number("I")
        variables = dict(reader.variable() for _ in range(reader.count()))
        for _ in range(reader.count()):
            alias, name = reader.string(), reader.string()
            if name not in variables:
                raise ValueError(f"'{alias}' stands for '{name}', which it does not have")
            variables[alias] = variables[name]
    return CTranslate2File(path, kind, variables)


class _Reader:
    """Reads the pieces of the layout and refuses to read past the end."""

    def __init__(self, content: mmap.mmap) -> None:
        self.content, self.at = content, 0

    def skip(self, length: int) -> int:
        start, self.at = self.at, self.at + length
        if self.at > len(self.content):
            raise ValueError(f"it is cut: {length} bytes are wanted at byte {start}, the file has {len(self.content)}")
        return start

    def number(self, code: str) -> int:
        found: int = struct.unpack_from("<" + code, self.content, self.skip(struct.calcsize(code)))[0]
        return found

    def count(self) -> int:
        count = self.number("I")
        if count > MOST_VARIABLES:
            raise ValueError(f"it claims {count} variables")
        return count

    def string(self) -> str:
        start = self.skip(self.number("H"))
        return self.content[start : self.at].rstrip(b"\0").decode("utf-8", errors="replace")

    def variable(self) -> tuple[str, Stored]:
        name, axes = self.string(), self.number("B")
        if axes > MOST_AXES:
            raise ValueError(f"variable '{name}' has {axes} axes")
        shape = tuple(self.number("I") for _ in range(axes))
        kind, length = self.number("B"), self.number("I")
        if kind >= len(DTYPES):
            raise ValueError(f"variable '{name}' is of the unknown dtype {kind}")
        if length != math.prod(shape) * int(DTYPES[kind][-1]):
            raise ValueError(f"variable '{name}' has {length} bytes, which is not {DTYPES[kind]}{list(shape)}")
        return name, Stored(DTYPES[kind], shape, self.skip(length))
