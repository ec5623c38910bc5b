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
        self.said: Tensor | None = None
        if self.penalty != 1.0:
            self.said = torch.zeros(like.shape, dtype=torch.bool, device=like.device)
            for row, prompt in enumerate(prompts):
                self.said[row, _ids([token for token in prompt if 0 <= token < like.shape[1]], like)] = True

    def apply(self, logits: Tensor, *, length: int) -> Tensor:
        """logits float[batch vocab] before token number `length` of the answer (0-based); the same tensor when no rule applies."""
        if self.said is not None:
            softened = torch.where(logits < 0, logits * self.penalty, logits / self.penalty)
            logits = torch.where(self.said, softened, logits)
        for ids, applies in ((self.ends, length < self.shortest), (self.never, True), (self.not_first, length == 0)):
            if applies and len(ids):
                logits = logits.index_fill(1, ids, FORBIDDEN)
        return logits

    def note(self, tokens: Tensor) -> None:
        """Remember the chosen tokens, int64[batch]."""
        if self.said is not None:
            self.said.scatter_(1, tokens[:, None], value=True)

    def reorder(self, rows: Tensor) -> None:
        """Follow the rows of a beam search."""
        if self.said is not None:
            self.said = self.said[rows]


def _ids(ids: Sequence[int], like: Tensor) -> Tensor:
    return torch.tensor(sorted(set(ids)), dtype=torch.long, device=like.device)
