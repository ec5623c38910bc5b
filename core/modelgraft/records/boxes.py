"""Rectangles on a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelgraft.kernel.words.errors import InputError
from modelgraft.records.owning import own
from modelgraft.records.record_type import Reading, RecordType, from_json
from modelgraft.records.telling import describe

CORNERS = ("x0", "y0", "x1", "y1")


class BoxesType(RecordType):
    """The boxes of one picture: a list of mappings with corners in pixels, and an optional text and score each."""

    name, meaning = "boxes", "rectangles on a picture, with an optional text and score each"
    writes = (".json",)
    colour = ("#b45309", "#e8a05c")

    def read(self, value: Any, reading: Reading) -> list[dict[str, Any]]:
        """Check each box, and copy it."""
        if isinstance(value, str | bytes) or not isinstance(value, Sequence):
            raise reading.refused(value, f"boxes: a list of mappings with {', '.join(CORNERS)}")
        for index, box in enumerate(value):
            if not isinstance(box, Mapping) or any(not isinstance(box.get(corner), int | float) for corner in CORNERS):
                wanted = f"a mapping with the numbers {', '.join(CORNERS)}, in pixels"
                raise InputError(f"{reading.label} box {index}: found {describe(box)}, wanted {wanted}")
        return [own(dict(box)) for box in value]

    def accepts(self, value: Any) -> bool:
        """Lists, also empty ones: a picture may show nothing."""
        return isinstance(value, list | tuple)

    def example(self, index: int) -> list[dict[str, Any]]:
        """One box, and two."""
        return [{"x0": 1.0 + at, "y0": 2.0, "x1": 5.0 + at, "y1": 9.0, "text": "fox", "score": 0.5} for at in range(1 + index % 2)]

    def is_batch(self, value: list[Any]) -> bool:
        """A list of boxes is one record, a list of such lists a batch."""
        return bool(value) and all(isinstance(record, list | tuple) for record in value)

    def spoken(self, text: str, label: str) -> Any:
        """JSON."""
        return from_json(text, label)
