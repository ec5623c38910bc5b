"""Logits to logits: penalties for what was said, tokens that may not be chosen."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from modelgraft.generation.settings import Settings

FORBIDDEN = float("-inf")


class Scoring:
    """The rules of one run. Costs nothing when there are none: `apply` then gives back the very tensor it got.

    Order as in transformers: repetition penalty, shortest length, suppressed tokens.
    """

    def __init__(self, settings: Settings, prompts: Sequence[Sequence[int]], like: Tensor) -> None:
        """prompts: the tokens that count as said already, per row; like: the first logits, float[batch vocab]."""
        self.penalty = settings.repetition_penalty
        self.shortest = settings.min_new_tokens if settings.end_ids else 0
        self.ends = _ids(settings.end_ids, like)
        self.never = _ids(settings.suppressed, like)
        self.not_first = _ids(settings.suppressed_first, like)
        self.said: Tensor | None = None  # int64[batch n]: what each row has said, padded with some of it; never the whole vocabulary
        if self.penalty != 1.0:
            self.said = _padded([[token for token in prompt if 0 <= token < like.shape[1]] for prompt in prompts], like)

    def apply(self, logits: Tensor, *, length: int) -> Tensor:
        """logits float[batch vocab] before token number `length` of the answer (0-based); the same tensor when no rule applies."""
        if self.said is not None:
            found = logits.gather(1, self.said.clamp(min=0))
            softened = torch.where(found < 0, found * self.penalty, found / self.penalty)
            logits = logits.scatter(1, self.said.clamp(min=0), torch.where(self.said < 0, found, softened))
        for ids, applies in ((self.ends, length < self.shortest), (self.never, True), (self.not_first, length == 0)):
            if applies and len(ids):
                logits = logits.index_fill(1, ids, FORBIDDEN)
        return logits

    def note(self, tokens: Tensor) -> None:
        """Remember the chosen tokens, int64[batch]."""
        if self.said is not None:
            said = torch.where(self.said < 0, tokens[:, None], self.said)  # a row that had said nothing has said this
            self.said = torch.cat([said, tokens[:, None]], 1)

    def reorder(self, rows: Tensor) -> None:
        """Follow the rows of a beam search."""
        if self.said is not None:
            self.said = self.said[rows]


def _padded(rows: Sequence[Sequence[int]], like: Tensor) -> Tensor:
    """Rows of tokens, each as long as the longest: filled up with its first one, with -1 where there is none."""
    longest = max(map(len, rows), default=0)
    filled = [[*row, *[row[0] if row else -1] * (longest - len(row))] for row in rows]
    return torch.tensor(filled, dtype=torch.long, device=like.device).view(len(rows), longest)


def _ids(ids: Sequence[int], like: Tensor) -> Tensor:
    return torch.tensor(sorted(set(ids)), dtype=torch.long, device=like.device)
