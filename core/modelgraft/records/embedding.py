"""Vectors that stand for something: what an encoder made of a picture, a text or a sound, kept or looked up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelgraft.records.record_type import Reading, RecordType

if TYPE_CHECKING:
    from modelgraft.records.vectors import Embedding


class EmbeddingType(RecordType):
    """A vector as a record: `modelgraft.Embedding`."""

    name, meaning = "embedding", "a vector that stands for something, with the space that it lies in"
    reads = (".npy", ".json")
    writes = (".npy", ".json")
    colour = ("#475569", "#94a3b8")

    def read(self, value: Any, reading: Reading) -> Embedding:
        """Take numbers, a file, or a mapping with `vector` or `file`, and `family`."""
        from modelgraft.records.vectors import read

        return read(value, reading)

    def accepts(self, value: Any) -> bool:
        """Embeddings."""
        from modelgraft.records.vectors import Embedding

        return isinstance(value, Embedding)

    def example(self, index: int) -> Embedding:
        """Two directions of one width: vectors of a family have the same."""
        from modelgraft.records.vectors import example

        return example(index)

    def is_batch(self, value: list[Any]) -> bool:
        """A list of numbers is one vector."""
        return not (value and all(isinstance(number, int | float) for number in value))
