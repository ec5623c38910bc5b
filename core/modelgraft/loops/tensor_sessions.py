"""Any session as one sees it who computes with torch: beams, likelihoods, drafts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy

from modelgraft.records.arrays import as_array, as_tensor

if TYPE_CHECKING:
    from torch import Tensor

    from modelgraft.loops.decoder import Session


class InTensors:
    """A session that gives and takes tensors; where it is one of arrays, on the memory of these. See Session and LooksAhead."""

    def __init__(self, inner: Session) -> None:
        self.inner: Any = inner
        self.given: Callable[[Tensor], Any] = as_array if isinstance(inner.logits, numpy.ndarray) else _as_it_is

    @property
    def logits(self) -> Tensor:
        """See Session."""
        found: Tensor = as_tensor(self.inner.logits)
        return found

    @property
    def states(self) -> Tensor | None:
        """See Session."""
        found: Tensor | None = as_tensor(self.inner.states)
        return found

    def step(self, tokens: Tensor) -> Tensor:
        """See Session."""
        found: Tensor = as_tensor(self.inner.step(self.given(tokens)))
        return found

    def look(self, tokens: Tensor) -> Tensor:
        """See LooksAhead."""
        found: Tensor = as_tensor(self.inner.look(self.given(tokens)))
        return found

    def reorder(self, rows: Tensor) -> None:
        """See Session."""
        self.inner.reorder(self.given(rows))

    def fork(self, rows: Tensor) -> InTensors:
        """See Session."""
        return InTensors(self.inner.fork(self.given(rows)))

    def rewind(self, tokens: int) -> None:
        """See Session."""
        self.inner.rewind(tokens)

    def close(self) -> None:
        """See Session."""
        self.inner.close()


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor
