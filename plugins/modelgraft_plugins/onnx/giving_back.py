"""Pages of files that are given back while matrices are read from them, one after the other, so that they are never all there at once."""

from __future__ import annotations

from collections.abc import Iterable

from modelgraft.plugin import give_back_files

GIVEN_BACK = 1 << 23  # bytes that are read before they are given back; looking for pages takes about 20 ms,
TIMES = 20  # so that it is done so often for a graph, and not more


class GivingBack:
    """Gives pages back each time that enough was read."""

    def __init__(self, sizes: Iterable[int]) -> None:
        """sizes: of all that will be read, in bytes."""
        self.most, self.read = max(GIVEN_BACK, sum(sizes) // TIMES), 0

    def note(self, size: int) -> None:
        """Note that so many bytes were read."""
        self.read += size
        if self.read > self.most:
            give_back_files()
            self.read = 0
