"""Whatever a graph hands on without looking at it."""

from __future__ import annotations

from typing import Any

from modelgraft.records.owning import PLAIN, own
from modelgraft.records.record_type import Reading, RecordType


class ObjectType(RecordType):
    """Any value. A copy is handed on where it is known how to copy it, the value itself otherwise."""

    name, meaning = "object", "any Python value, handed on by reference"
    plain = PLAIN
    colour = ("#44403c", "#bdb6b0")

    def read(self, value: Any, reading: Reading) -> Any:  # noqa: ARG002 nothing is refused
        """Take it."""
        return own(value)

    def accepts(self, value: Any) -> bool:  # noqa: ARG002 nothing is refused
        """Everything."""
        return True

    def example(self, index: int) -> dict[str, int]:
        """A mapping."""
        return {"id": index}

    def misfit(self, default: Any) -> str | None:  # noqa: ARG002 nothing is refused
        """Anything may stand in the graph."""
        return None
