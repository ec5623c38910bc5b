"""The layout of a GGUF file, read without numpy: metadata by key, and where each tensor lies.

    "GGUF", version, number of tensors, number of keys          integers are little endian
    keys:     name, type, value                                 a string is its length and its bytes
    tensors:  name, number of axes, axes (innermost first), quantisation type, offset
    padding to `general.alignment`, then the tensors' bytes

Every number in the file is checked against the file's size before it is used.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from modelgraft_plugins.formats import gguf_kinds

VERSIONS = (2, 3)
SCALARS: Mapping[int, str] = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
MOST_AXES = 8
MOST_KEYS = 100_000  # models have some dozens
MOST_TENSORS = 500_000  # five times those of the largest model of experts
MOST_ENTRIES = 16 << 20  # of one list: sixty times the largest vocabulary
MOST_LETTERS = 64 << 20  # of one text
MOST_ALIGNMENT = 1 << 20
ALIGNMENT = 32  # where the file does not give another


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in the file: its shape, outermost axis first, the number of its quantisation type, and its first byte."""

    name: str
    shape: tuple[int, ...]
    kind: int
    start: int


@dataclass(frozen=True, slots=True)
class GgufFile:
    """What a GGUF file says before its tensors."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: tuple[Stored, ...]


def read(path: Path) -> GgufFile:
    """Read everything but the tensors' bytes. Raises ValueError with what is wrong."""
    with path.open("rb") as file:
        reader = _Reader(file, path.stat().st_size)
        if file.read(4) != b"GGUF":
            raise ValueError("it does not start with GGUF")
        version = reader.number("I")
        if version not in VERSIONS:
            raise ValueError(f"it is of GGUF version {version}; the versions read are {VERSIONS}")
        tensors, keys = reader.count(MOST_TENSORS, "tensors"), reader.count(MOST_KEYS, "keys")
        metadata = {reader.string(): reader.value(reader.number("I")) for _ in range(keys)}
        gguf_kinds.check(metadata)
        listed = [reader.tensor() for _ in range(tensors)]
        alignment = _alignment(metadata.get("general.alignment", ALIGNMENT))
        base = -(-file.tell() // alignment) * alignment
    return GgufFile(path, metadata, tuple(Stored(name, shape, kind, base + start) for name, shape, kind, start in listed))


def _alignment(stated: Any) -> int:
    if not isinstance(stated, int) or not 0 <= stated <= MOST_ALIGNMENT:
        raise ValueError(f"its metadata state general.alignment = {stated!r}, wanted a whole number up to {MOST_ALIGNMENT:,}")
    return stated or ALIGNMENT


class _Reader:
    """Reads the pieces of the layout and refuses to read past the end."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size = file, size

    def take(self, length: int) -> bytes:
        found = self.file.read(length) if length <= self.size - self.file.tell() else b""
        if len(found) != length:
            raise ValueError(f"it is cut: {length} bytes are wanted at byte {self.file.tell()}, the file has {self.size}")
        return found

    def number(self, code: str) -> Any:  # Any: an int, float or bool by its code
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def count(self, most: int, what: str) -> int:
        """A number of things that follow; each takes at least a byte."""
        count: int = self.number("Q")
        if count > self.size:
            raise ValueError(f"it claims {count} entries in {self.size} bytes")
        if count > most:
            raise ValueError(f"it claims {count:,} {what}, and {most:,} are the most that are read")
        return count

    def string(self) -> str:
        return self.take(self.count(MOST_LETTERS, "letters")).decode("utf-8", errors="replace")

    def strings(self, count: int) -> list[str]:
        """As many strings: those of a vocabulary are a hundred thousand, and are cut out of the mapped file."""
        found, at, length_of = list[str](), self.file.tell(), struct.Struct("<Q").unpack_from
        with mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            while len(found) < count and at + 8 <= self.size:
                end = at + 8 + length_of(mapped, at)[0]
                if end > self.size or end - at - 8 > MOST_LETTERS:
                    break
                found.append(mapped[at + 8 : end].decode("utf-8", errors="replace"))
                at = end
        self.file.seek(at)
        return found if len(found) == count else [*found, self.string()]  # which says what is wrong with it

    def value(self, kind: int) -> Any:  # Any: what the file holds
        if kind == STRING:
            return self.string()
        if kind != ARRAY:
            return self.number(_code(kind))
        inner, count = self.number("I"), self.count(MOST_ENTRIES, "entries")
        if inner == STRING:
            return self.strings(count)
        code = _code(inner)
        return list(struct.unpack(f"<{count}{code}", self.take(count * struct.calcsize("<" + code))))

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name, axes = self.string(), self.number("I")
        if axes > MOST_AXES:
            raise ValueError(f"tensor '{name}' has {axes} axes")
        shape = tuple(reversed(struct.unpack(f"<{axes}Q", self.take(8 * axes))))
        return name, shape, self.number("I"), self.number("Q")


def _code(kind: int) -> str:
    if kind not in SCALARS:
        raise ValueError(f"it has a value of the unknown type {kind}")
    return SCALARS[kind]
