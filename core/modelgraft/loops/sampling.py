"""Logits to tokens: the most likely one, or one drawn at random."""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from modelgraft.loops.chosen import Tokens
from modelgraft.loops.finite_logits import Largest, largest_of
from modelgraft.loops.settings import Settings
from modelgraft.records.arrays import as_array, on_host

if TYPE_CHECKING:
    from modelgraft.records.arrays import Array


class Chooser(Protocol):
    """Chooses a token of each row."""

    def __call__(self, logits: Array, largest: Largest | None = None, /) -> Tokens:
        """Of float[batch vocab];  largest  of these, where it is known."""
        ...


def chooser(settings: Settings, prompts: Sequence[Sequence[int]], *, seed: int) -> Chooser:
    """How this run chooses tokens.

    Each row draws from random numbers of its own, seeded by `seed` and its prompt: the same alone and in any batch.
    """
    if not settings.draws:
        return likeliest
    from modelgraft.loops import drawn_tokens
    from modelgraft.loops.random_numbers import numbers_of

    numbers = [numbers_of(_row_seed(seed, prompt)) for prompt in prompts]
    drawer = drawn_tokens.Drawer(settings)

    def choose(logits: Any, largest: Largest | None = None, /) -> Tokens:
        if largest is not None and largest.rows is not None:  # the usual case: nothing of torch is asked
            return Tokens([drawer.draw(*each) for each in zip(largest.rows, map(next, numbers), largest.values, strict=True)])
        if on_host(logits):
            found = largest or largest_of(logits)
            rows = zip(found.rows or as_array(logits.float()), numbers, found.values, strict=True)
            return Tokens([drawer.draw(row, next(drawn), most) for row, drawn, most in rows])
        from modelgraft.loops.drawn_in_torch import drawn

        return drawn(logits, [next(each) for each in numbers], settings)

    return choose


def likeliest(logits: Array, largest: Largest | None = None, /) -> Tokens:
    """The most likely token of each row of float[batch vocab]; the first of equal ones."""
    if largest is None and not on_host(logits):
        return Tokens(tensor=logits.argmax(-1))  # which nobody waits for
    return (largest or largest_of(logits)).tokens


def _row_seed(seed: int, prompt: Sequence[int]) -> int:
    return (seed * 0x9E3779B1 + zlib.crc32(array("q", prompt).tobytes())) & 0x7FFF_FFFF_FFFF_FFFF
