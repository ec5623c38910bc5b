"""Texts."""

from __future__ import annotations

from typing import Any

from modelgraft.kernel.words.errors import InputError
from modelgraft.records.record_type import Reading, RecordType


class TextType(RecordType):
    """A string."""

    name, meaning = "text", "a string"
    is_text = is_spoken = True
    colour = ("#15803d", "#5cc98a")

    def read(self, value: Any, reading: Reading) -> str:
        """Take a string of whole characters. Half a surrogate pair, as bytes that are no UTF-8 come out of a shell, is none."""
        if not isinstance(value, str):
            raise reading.refused(value, "text: a string")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            found = f"letter {error.start + 1} of the text is {value[error.start]!a}, half a character"
            raise InputError(f"{reading.label}: {found}; wanted text that UTF-8 can write: leave it out") from None
        return value

    def accepts(self, value: Any) -> bool:
        """Strings."""
        return isinstance(value, str)

    def example(self, index: int) -> str:
        """Two texts of different length."""
        return ("a red fox in the snow", "rain")[index % 2]

    def spoken(self, text: str, label: str) -> str:  # noqa: ARG002 a text is what it is
        """The text as it is."""
        return text

    def misfit(self, default: Any) -> str | None:
        """A text may stand in the graph."""
        return None if isinstance(default, str) else "a text"
