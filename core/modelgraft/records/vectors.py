"""Vectors that stand for something: what an encoder made of a picture, a text or a sound, kept or looked up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from modelgraft.kernel.words.errors import InputError
from modelgraft.records.embedding import EmbeddingType
from modelgraft.records.record import Record

if TYPE_CHECKING:
    from pathlib import Path

    import numpy

    from modelgraft.records.opening import Say
    from modelgraft.records.record_type import Reading

WANTED = "an embedding: a list of numbers, a .npy, a .json or modelgraft.Embedding"


@dataclass(frozen=True, slots=True, eq=False)
class Embedding(Record):
    """A vector.

    vector  float32[width]
    family  the space that it lies in, such as "imagebind": vectors of different families cannot be compared; "" when it is not known
    """

    vector: numpy.ndarray[Any, Any]
    family: str = ""
    called: ClassVar[str] = "an embedding"
    endings: ClassVar[tuple[str, ...]] = EmbeddingType.writes

    def brief(self) -> str:
        """Its width."""
        return f"{self.family} embedding of {self.vector.shape[0]} numbers".lstrip()

    def facts(self) -> dict[str, Any]:
        """Its numbers: they are what it is."""
        return {"type": "embedding", "family": self.family, "vector": self.vector.tolist()}

    def save(self, target: Path, label: str, say: Say) -> None:
        """Write the numbers (.npy), or with their family (.json)."""
        import numpy

        from modelgraft.records.json_text import json_text

        if target.suffix.lower() == ".npy":
            if self.family:
                say(f"{label}: .npy holds the numbers alone, and not that they are of {self.family}")
            numpy.save(target, self.vector)
        else:
            target.write_text(json_text({"vector": self.vector.tolist(), "family": self.family}) + "\n", encoding="utf-8")

    def __repr__(self) -> str:
        return f"Embedding({self.vector.shape[0]}{', ' + self.family if self.family else ''})"


def read(value: Any, reading: Reading) -> Embedding:
    """Take numbers, a file, or a mapping with `vector` or `file`, and `family`."""
    from modelgraft.records.arrays import NPY, is_source, json_in, npy_in, told
    from modelgraft.records.opening import open_named

    if isinstance(value, Embedding):
        return _checked(value.vector, value.family, reading)
    given = told(value, reading, key="vector", known=("family", "type"))  # `type`: as `map` and JSON write an embedding
    family = given.facts.get("family", "")
    if not is_source(given.value):
        return _checked(given.value, family, reading)
    label, stream = open_named(given.value, name=reading.label, wanted=WANTED, find=reading.find)
    with stream:
        label = f"{reading.label}: {label}"
        if stream.read(len(NPY)) == NPY:
            return _checked(npy_in(stream, label), family, reading)
        inside = told(json_in(stream, label), reading, key="vector", known=("family", "type"))
    return _checked(inside.value, family or inside.facts.get("family", ""), reading)


def example(index: int) -> Embedding:
    """Two directions of one width: vectors of a family have the same."""
    import numpy

    return Embedding(numpy.roll(numpy.linspace(-1.0, 1.0, 7, dtype=numpy.float32), index))


def _checked(vector: Any, family: Any, reading: Reading) -> Embedding:
    import numpy

    from modelgraft.records.arrays import array_of

    found = array_of(vector, reading, WANTED)
    if found.ndim != 1 or not found.size or found.dtype.kind not in "iuf":
        raise reading.refused(found, "float[width]")
    if not isinstance(family, str):
        raise InputError(f"{reading.label}: family is {family!r}; wanted: a text, such as the name of the model")
    if not bool(numpy.isfinite(found).all()):
        raise InputError(f"{reading.label}: holds numbers that are not finite")
    return Embedding(found.astype(numpy.float32), family)
