"""Rules about several tokens in a row: what repeats, and what would complete a sequence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def repeated(heard: Sequence[int], text: Sequence[int], size: int) -> list[int]:
    """The tokens that would make the last `size` tokens of a text ones that were heard in a row before."""
    before = list(text[len(text) - size + 1 :]) if size > 1 else []
    if len(before) < size - 1 or len(text) + 1 < size:
        return []
    return [heard[start + size - 1] for start in range(len(heard) - size + 1) if list(heard[start : start + size - 1]) == before]


class Biases:
    """What is added to the logit of the last token of each sequence, where the tokens before it stand already."""

    def __init__(self, sequences: Iterable[tuple[Sequence[int], float]], like: Tensor) -> None:
        """like: logits, float[batch vocab]. Of a sequence that is named twice, the last bias counts, as in transformers."""
        self.alone = torch.zeros(like.shape[1], device=like.device)
        self.longer: list[tuple[list[int], int, float]] = []  # the tokens before, the last one, the bias
        self.has_alone = False
        for tokens, bias in {tuple(tokens): bias for tokens, bias in sequences}.items():
            *before, last = tokens
            if before:
                self.longer.append((list(before), last, bias))
            else:
                self.alone[last], self.has_alone = bias, True

    def add(self, logits: Tensor, texts: Sequence[Sequence[int]]) -> Tensor:
        """logits float[batch vocab] after the tokens that each row holds."""
        logits = logits + self.alone if self.has_alone else logits
        hits = [
            (row, last, bias)
            for row, text in enumerate(texts)
            for before, last, bias in self.longer
            if list(text[-len(before) :]) == before
        ]
        if hits:
            rows, lasts, biases = zip(*hits, strict=True)
            where = tuple(torch.tensor(each, device=logits.device) for each in (rows, lasts))
            logits = logits.index_put(where, torch.tensor(biases, dtype=logits.dtype, device=logits.device), accumulate=True)
        return logits
