"""Memories that decoders attend to: of each record the vectors that are there."""

from __future__ import annotations

from modelgraft.plugin import Array, InputError
from modelgraft_plugins.llm.classes import SPEECH


def rows(memory: Array, mask: Array | None, *, kind: str | None, node: str) -> list[Array]:
    """float[batch frames width] and bool[batch frames] as float[frames width] for each record.

    Raises InputError for unlike many vectors where the attention of the model has no mask, as that of models of speech.
    """
    found = list(memory) if mask is None else [row[there] for row, there in zip(memory, mask, strict=True)]
    if kind in SPEECH and len(lengths := sorted({len(row) for row in found})) > 1:
        left = f"memory_mask leaves {', '.join(map(str, lengths))} vectors of the records of a batch"
        raise InputError(f"{node}: {left}, and {kind} reads equally many of each: give one record at a time")
    return found
