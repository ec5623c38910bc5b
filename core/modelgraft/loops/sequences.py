"""Rules about several tokens in a row: what repeats, and what would complete a sequence."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy

from modelgraft.records.arrays import in_kind_of

if TYPE_CHECKING:
    from modelgraft.records.arrays import Array


class Following:
    """Which tokens follow which in a text that grows: of each run of so many but one, those that came next."""

    def __init__(self, text: Sequence[int], size: int) -> None:
        """size: of a run with the token behind it."""
        self.before = size - 1
        self.last: tuple[int, ...] = ()  # the end of the text, at most `before` tokens
        self.next: dict[tuple[int, ...], tuple[int, ...]] = {}
        for token in text:
            self.take(token)

    def take(self, token: int) -> None:
        """The text goes on with a token."""
        if len(self.last) == self.before:
            self.next[self.last] = (*self.next.get(self.last, ()), token)
        self.last = (*self.last, token)[-self.before :] if self.before else ()

    def after(self, text: Sequence[int]) -> tuple[int, ...]:
        """The tokens that followed the last ones of a text wherever these stood."""
        return self.next.get(tuple(text[len(text) - self.before :]) if self.before else (), ()) if len(text) >= self.before else ()

    def copy(self) -> Following:
        """One that goes its own way."""
        other = copy.copy(self)
        other.next = dict(self.next)
        return other


Owned = Callable[[], Any]  # gives logits that may be changed


class Biases:
    """What is added to the logit of the last token of each sequence, where the tokens before it stand already."""

    def __init__(self, sequences: Iterable[tuple[Sequence[int], float]], like: Array) -> None:
        """like: logits, float[batch vocab]. Of a sequence that is named twice, the last bias counts, as in transformers."""
        alone = numpy.zeros(like.shape[1], numpy.float32)
        self.longer: list[tuple[list[int], int, float]] = []  # the tokens before, the last one, the bias
        self.has_alone = False
        for tokens, bias in {tuple(tokens): bias for tokens, bias in sequences}.items():
            *before, last = tokens
            if before:
                self.longer.append((list(before), last, bias))
            else:
                alone[last], self.has_alone = bias, True
        self.alone = in_kind_of(alone, like)

    def add(self, mine: Owned, texts: Sequence[Sequence[int]]) -> None:
        """Change logits, float[batch vocab], after the tokens that each row holds."""
        if self.has_alone:
            logits = mine()
            logits += self.alone
        hits = [
            (row, last, bias)
            for row, text in enumerate(texts)
            for before, last, bias in self.longer
            if list(text[-len(before) :]) == before
        ]
        if hits:
            logits = mine()
            for row, last, bias in hits:
                logits[row, last] += bias
