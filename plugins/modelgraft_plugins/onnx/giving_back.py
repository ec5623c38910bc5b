"""Pages of files that are given back while matrices are read from them, one after the other, so that they are never all there at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from modelgraft.plugin import give_back_files

READ = "read"  # under which a graph notes the tensors that it reads, where it knows them: see `graph_writing`
GIVEN_BACK = 1 << 23  # bytes that are read before they are given back; looking for pages takes about 20 ms,
TIMES = 20  # so that it is done so often for a graph, and not more


class GivingBack:
    """Gives pages back each time that enough was read."""

    def __init__(self, sizes: Iterable[int], tensors: Iterable[Any] = ()) -> None:
        """What will be read.

        sizes    of all of it, in bytes
        tensors  of torch, whose pages are given back; where there are none, those of all files are
        """
        self.most, self.read, self.tensors = max(GIVEN_BACK, sum(sizes) // TIMES), 0, list(tensors)
        self._give: Callable[[], None] | None = None

    def note(self, size: int) -> None:
        """Note that so many bytes were read."""
        self.read += size
        if self.read > self.most:
            from modelgraft.plugin import giving_back  # brings torch

            self._give = self._give or (giving_back(self.tensors) if self.tensors else give_back_files)
            self._give()
            self.read = 0
