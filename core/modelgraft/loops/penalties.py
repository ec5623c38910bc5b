"""Penalties on tokens that were said, or read: each token of a row counts once, however often it stands there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy

from modelgraft.records.arrays import in_kind_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

ROOM = 64  # further tokens that there is room for at first


class Mentioned:
    """The tokens that stand in each row's text."""

    def __init__(self, texts: Sequence[Sequence[int]], vocabulary: int) -> None:
        """Of a text tokens outside the vocabulary do not count: they have no logit."""
        self.vocabulary = vocabulary
        self.known: list[set[int]] = [set() for _ in texts]
        self.ids: NDArray[numpy.int64] = numpy.zeros((len(texts), ROOM), numpy.int64)  # of each row, filled up with its first one
        for row, text in enumerate(texts):
            for token in text:
                self.take(row, token)

    def take(self, row: int, token: int) -> None:
        """The text of a row goes on with a token."""
        known = self.known[row]
        if token in known or not 0 <= token < self.vocabulary:
            return
        if len(known) == self.ids.shape[1]:
            self.ids = numpy.concatenate([self.ids, numpy.repeat(self.ids[:, :1], len(known), 1)], 1)
        if known:
            self.ids[row, len(known)] = token
        else:
            self.ids[row] = token
        known.add(token)

    def reorder(self, rows: Sequence[int]) -> None:
        """Let row i go on from what row `rows[i]` holds."""
        self.ids, self.known = self.ids[list(rows)], [set(self.known[row]) for row in rows]

    def penalise(self, logits: Any, penalty: float) -> None:
        """Divide logits, float[batch vocab], of these tokens where they are positive, and multiply them where they are negative."""
        if not isinstance(logits, numpy.ndarray):
            self._penalise_tensor(logits, penalty)
            return
        factor = numpy.float32(penalty)  # one of Python would come to the type of the logits, if that is less exact
        with numpy.errstate(over="ignore"):
            for row, ids, known in zip(logits, self.ids, self.known, strict=True):
                found = row.take(index := ids[: len(known)])
                row[index] = numpy.where(found < 0, found * factor, found / factor)

    def _penalise_tensor(self, logits: Tensor, penalty: float) -> None:
        """See `penalise`."""
        import torch

        counts = list(map(len, self.known))
        index = in_kind_of(self.ids[:, : max(counts)], logits)
        found = logits.gather(1, index)
        softened = torch.where(found < 0, found * penalty, found / penalty)
        if 0 in counts:  # a row that has said nothing is filled up with a token all the same
            softened = torch.where(torch.tensor(counts, device=logits.device)[:, None] > 0, softened, found)
        logits.scatter_(1, index, softened)
