"""Tokens drawn by torch, where the logits lie: on a device; what drawn_tokens.py does on the host is compared with it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from modelgraft.loops.chosen import Tokens
from modelgraft.loops.drawn_tokens import temperatures
from modelgraft.loops.scoring import FORBIDDEN
from modelgraft.loops.settings import MOST_BY_ENTROPY, Settings

BEGINNING = 256  # tokens that hold top_p in nearly every text


def drawn(logits: Tensor, numbers: Sequence[float], settings: Settings) -> Tokens:
    """A token of each row of float[batch vocab], by its number in [0, 1)."""
    before, after = temperatures(settings)
    below = logits.float() - logits.amax(-1, keepdim=True).float()  # which no temperature leads beyond the largest number of float32
    places = torch.tensor(numbers, dtype=torch.float64).to(logits.device)
    return Tokens(tensor=draw(narrow(below / before, settings) / after, places))


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
