"""The tokens that a step has chosen, one of each row: numbers on the host, and an array or a tensor where somebody asks for one.

Between two steps of a model its weights have gone through the caches of the core, so that whatever comes around a step is fetched from
memory: then an operation of torch takes 30 to 70 µs where it takes one in a loop of its own. So tokens stay numbers as long as nobody needs
a tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


class Tokens:
    """int64[batch]."""

    __slots__ = ("_ids", "_tensor")

    def __init__(self, ids: Sequence[int] | None = None, tensor: Tensor | None = None) -> None:
        """One of the two; a tensor may lie on any device."""
        self._ids, self._tensor = ids, tensor

    @property
    def ids(self) -> Sequence[int]:
        """As numbers; waits for the device where they lie on one."""
        if self._ids is None:
            assert self._tensor is not None
            self._ids = self._tensor.tolist()
        return self._ids

    @property
    def tensor(self) -> Tensor:
        """As a tensor, where they were chosen."""
        if self._tensor is None:
            import torch

            self._tensor = torch.tensor(self._ids, dtype=torch.int64)
        return self._tensor

    @property
    def array(self) -> NDArray[numpy.integer[Any]]:
        """As an array, int64[batch]."""
        return numpy.array(self.ids, numpy.int64)
