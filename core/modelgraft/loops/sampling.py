"""Logits to tokens: the most likely one, or one drawn at random."""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from modelgraft.loops import drawn_tokens
from modelgraft.loops.chosen import Tokens
from modelgraft.loops.finite_logits import Largest, largest_of
from modelgraft.loops.scoring import FORBIDDEN
from modelgraft.loops.settings import MOST_BY_ENTROPY, Settings

BEGINNING = 256  # tokens that hold top_p in nearly every text
NUMBERS = 32  # that are made at once: each alone takes as long as choosing among a few tokens


class Chooser(Protocol):
    """Chooses a token of each row."""

    def __call__(self, logits: Tensor, largest: Largest | None = None, /) -> Tokens:
        """Of float[batch vocab];  largest  of these, where it is known."""
        ...


def chooser(settings: Settings, prompts: Sequence[Sequence[int]], *, seed: int) -> Chooser:
    """How this run chooses tokens.

    Each row draws from random numbers of its own, seeded by `seed` and its prompt: the same alone and in any batch.
    """
    if not settings.draws:
        return likeliest
    numbers = [_numbers(torch.Generator().manual_seed(_row_seed(seed, prompt))) for prompt in prompts]
    drawer = drawn_tokens.Drawer(settings)

    def choose(logits: Tensor, largest: Largest | None = None, /) -> Tokens:
        if largest is not None and largest.rows is not None:  # the usual case: nothing of torch is asked
            return Tokens([drawer.draw(*each) for each in zip(largest.rows, map(next, numbers), largest.values, strict=True)])
        if logits.device.type == "cpu":
            found = largest or largest_of(logits)
            rows = zip(found.rows or logits.float().numpy(), numbers, found.values, strict=True)
            return Tokens([drawer.draw(row, next(drawn), most) for row, drawn, most in rows])
        places = torch.tensor([next(drawn) for drawn in numbers], dtype=torch.float64)
        before, after = drawn_tokens.temperatures(settings)
        below = logits.float() - logits.amax(-1, keepdim=True).float()  # which no temperature leads beyond the largest number of float32
        return Tokens(tensor=draw(narrow(below / before, settings) / after, places.to(logits.device)))

    return choose


def _numbers(generator: torch.Generator) -> Iterator[float]:
    """One number in [0, 1) after the other, without end."""
    while True:
        yield from torch.rand(NUMBERS, generator=generator, dtype=torch.float64).tolist()


def likeliest(logits: Tensor, largest: Largest | None = None, /) -> Tokens:
    """The most likely token of each row of float[batch vocab]; the first of equal ones."""
    if largest is None and logits.device.type != "cpu":
        return Tokens(tensor=logits.argmax(-1))  # which nobody waits for
    return (largest or largest_of(logits)).tokens


def _row_seed(seed: int, prompt: Sequence[int]) -> int:
    return (seed * 0x9E3779B1 + zlib.crc32(array("q", prompt).tobytes())) & 0x7FFF_FFFF_FFFF_FFFF


def narrow(logits: Tensor, settings: Settings) -> Tensor:
    """Forbid what top_h, top_k, top_p and the others leave out; the most likely token always stays. float[batch vocab] both ways.

    Each rule looks at what those before it left over, in the order of transformers.
    """
    if settings.top_h is not None:
        logits = _only(logits, _by_entropy(logits, settings.top_h))
    if settings.top_k is not None and settings.top_k < logits.shape[-1]:
        least = logits.topk(settings.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < least, FORBIDDEN)
    if settings.top_p is not None and settings.top_p < 1:
        order, dropped = _nucleus(logits, settings.top_p)
        dropped[:, 0] = False
        logits = logits.masked_fill(torch.ones_like(logits, dtype=torch.bool).scatter(1, order, dropped), FORBIDDEN)
    if settings.min_p is not None:
        shares = logits.softmax(-1)
        logits = _only(logits, shares >= settings.min_p * shares.amax(-1, keepdim=True))
    if settings.typical_p is not None and settings.typical_p < 1:
        logits = _only(logits, _typical(logits, settings.typical_p), always_likeliest=False)
    if settings.epsilon_cutoff is not None and 0 < settings.epsilon_cutoff < 1:
        logits = _only(logits, logits.softmax(-1) >= settings.epsilon_cutoff)
    if settings.eta_cutoff is not None and 0 < settings.eta_cutoff < 1:
        shares, eta = logits.softmax(-1), settings.eta_cutoff
        surprise = torch.special.entr(shares).sum(-1, keepdim=True)
        logits = _only(logits, shares >= (eta**0.5 * (-surprise).exp()).clamp(max=eta))
    return logits


def _only(logits: Tensor, kept: Tensor, *, always_likeliest: bool = True) -> Tensor:
    """Forbid all that is not kept, bool[batch vocab]."""
    if always_likeliest:
        kept = kept | (logits >= logits.amax(-1, keepdim=True))
    return logits.masked_fill(~kept, FORBIDDEN)


def _typical(logits: Tensor, mass: float) -> Tensor:
    """The tokens whose surprise is nearest to the expected one, as many as hold so much probability; bool[batch vocab]."""
    shares, surprise = logits.softmax(-1), -logits.log_softmax(-1)
    far = (surprise - torch.special.entr(shares).sum(-1, keepdim=True)).abs()
    ordered, order = far.sort(-1)
    reached: Tensor = (shares.gather(-1, order).cumsum(-1) < mass).sum(-1, keepdim=True).clamp(max=logits.shape[-1] - 1)
    kept: Tensor = far <= ordered.gather(-1, reached)
    return kept


def _by_entropy(logits: Tensor, part: float) -> Tensor:
    """The likeliest tokens that together hold a part of the entropy of the first hundred; bool[batch vocab]."""
    best, order = logits.topk(min(MOST_BY_ENTROPY, logits.shape[-1]), dim=-1)
    terms = torch.special.entr(best.softmax(-1))
    kept = terms.cumsum(-1) <= part * terms.sum(-1, keepdim=True)
    return torch.zeros_like(logits, dtype=torch.bool).scatter(1, order, kept)


def _nucleus(logits: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """The most likely tokens in order, int64[batch n], and which of them are not needed to reach top_p; all others are not.

    A vocabulary takes milliseconds to sort, and a few tokens are mostly enough, so it is sorted only when they are not.
    """
    whole = logits.logsumexp(-1, keepdim=True)
    for count in (BEGINNING, logits.shape[-1]):
        ordered, order = logits.topk(min(count, logits.shape[-1]), dim=-1)
        shares = (ordered - whole).exp()
        dropped = shares.cumsum(-1) - shares >= top_p  # probability of all that are more likely
        if dropped[:, -1].all():
            break
    return order, dropped


def draw(logits: Tensor, numbers: Tensor) -> Tensor:
    """Draw one token per row by inverting the distribution function at numbers[row] in [0, 1)."""
    heights = logits.double().softmax(-1).cumsum(-1)  # in float64: a float32 sum over 100,000 tokens would lose the tail
    wanted = (numbers * heights[:, -1])[:, None]
    found = torch.searchsorted(heights, wanted, right=True).squeeze(1)
    return found.clamp_(max=logits.shape[-1] - 1)
