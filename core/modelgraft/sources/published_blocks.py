"""Matrices as a file holds them in blocks of few bits, beside the numbers that a reader made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class PublishedBlocks:
    """A matrix in blocks: runs of numbers of one row that share a scale. Each number is `scale * (number - centre) + offset`.

    numbers  uint8[rows columns], below 2**bits;  bits  8 or 4;  size  numbers in a block
    scales   float32[rows columns/size];  offsets  as many, None: there are none
    """

    numbers: NDArray[numpy.uint8]
    scales: NDArray[numpy.float32]
    centre: int
    bits: int
    size: int
    offsets: NDArray[numpy.float32] | None = None

    def rows(self, start: int, stop: int) -> NDArray[numpy.float32]:
        """Some rows as numbers, float32[rows columns], each operation rounded as in the file's own arithmetic."""
        import numpy

        numbers = self.numbers[start:stop].astype(numpy.float32) - numpy.float32(self.centre)
        found = numbers.reshape(len(numbers), -1, self.size) * self.scales[start:stop, :, None]
        if self.offsets is not None:
            found = found + self.offsets[start:stop, :, None]
        made: NDArray[numpy.float32] = found.reshape(numbers.shape)
        return made
