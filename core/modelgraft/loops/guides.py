"""What bounds answers token by token while they are written, such as a grammar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from modelgraft.kernel.words.errors import InputError
from modelgraft.loops.scoring import FORBIDDEN
from modelgraft.records.arrays import as_tensor

if TYPE_CHECKING:
    from torch import Tensor

    from modelgraft.records.arrays import Array


class Guide(Protocol):
    """Follows one answer."""

    @property
    def is_over(self) -> bool:
        """Nothing can follow what was written."""
        ...

    def allowed(self) -> Tensor:
        """bool[n] on the host: which of the first tokens of the vocabulary may come next; those beyond may not. Never an end alone
        where something must follow."""
        ...

    def take(self, token: int) -> None:
        """Follow a token that was written, an end token too."""
        ...


def guided(given: Array, guides: Sequence[Guide], rows: Sequence[int]) -> Tensor:
    """Forbid what the guides of some rows do not allow, float[batch vocab] both ways.

    Raises InputError where nothing is left.
    """
    import torch

    logits: Tensor = as_tensor(given)
    kept = torch.ones(logits.shape, dtype=torch.bool)
    for row in rows:
        found = guides[row].allowed()[: logits.shape[1]]
        kept[row, : len(found)], kept[row, len(found) :] = found, False
    bounded = logits.masked_fill(~kept.to(logits.device), FORBIDDEN)
    stuck = [row for row in rows if bool((bounded[row] == FORBIDDEN).all())]
    if stuck:
        why = "of the tokens that the model may choose none fits what the answer must look like"
        raise InputError(f"the answer of record {stuck[0]} cannot go on: {why}; look at suppress_tokens and other rules beside it")
    return bounded
