"""Masks: for each pixel of a picture, whether it belongs to something. A tensor of truth values is a port `mask[batch ...]`, not this."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelgraft.records.record_type import Reading, RecordType

if TYPE_CHECKING:
    from modelgraft.records.masks import Mask


class MaskType(RecordType):
    """A mask of one picture: `modelgraft.Mask`."""

    name, meaning = "mask", "which pixels of a picture belong to something"
    reads = (".png", ".npy", ".bmp", ".pbm", ".gif")
    writes = (".png", ".npy")
    colour = ("#9f5f4b", "#d99b87")

    def read(self, value: Any, reading: Reading) -> Mask:
        """Take a picture of two shades, or truth values."""
        from modelgraft.records.masks import read

        return read(value, reading)

    def accepts(self, value: Any) -> bool:
        """Masks."""
        from modelgraft.records.masks import Mask

        return isinstance(value, Mask)

    def is_batch(self, value: list[Any]) -> bool:
        """Rows of truth values are one mask."""
        return not _is_row(value[0]) if value else True

    def example(self, index: int) -> Mask:
        """Two stripes of unlike sizes."""
        from modelgraft.records.masks import example

        return example(index)


def _is_row(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and isinstance(value[0], bool | int | float)
