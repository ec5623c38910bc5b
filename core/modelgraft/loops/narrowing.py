"""What the rules leave over of some tokens, and the draw from these: what `narrow` and `draw` of drawn_in_torch.py do with all.

Rules that ask for a bound alone leave tokens in their order; only the others sort them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy

from modelgraft.loops import few_tokens
from modelgraft.loops.few_tokens import FewRules
from modelgraft.loops.settings import MOST_BY_ENTROPY, Settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[numpy.floating[Any]]  # float[n]
    Ids = NDArray[numpy.integer[Any]]  # int64[n]

TINY = 1e-300  # what has no share adds nothing, and has a logarithm
ORDER = ("top_h", "top_k", "top_p", "min_p", "typical", "epsilon", "eta")  # in which the rules look at what is left over
BY_BOUNDS = frozenset({"top_k", "min_p", "epsilon"})
COMMON = BY_BOUNDS | {"top_p"}


class Total(NamedTuple):
    """The sum of exp(value) over all tokens, at least and at most, and the entropy of the distribution where a rule asks for it."""

    least: float
    most: float
    entropy: float = 0.0


@dataclass(frozen=True, slots=True)
class Rules:
    """What leaves tokens out, in this order; None: it does not. `after`: what values are divided by behind them."""

    top_h: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    typical: float | None
    epsilon: float | None
    eta: float | None
    after: float
    names: tuple[str, ...] = field(init=False)  # of those that there are, in their order
    has_bounds: bool = field(init=False)  # they ask for bounds alone
    few: FewRules | None = field(init=False)  # the same for a few tokens; None: there are other rules

    def __post_init__(self) -> None:
        names = tuple(name for name in ORDER if getattr(self, name) is not None)
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "has_bounds", BY_BOUNDS.issuperset(names))
        few = FewRules(self.top_k, self.top_p, self.min_p, self.epsilon, self.after) if COMMON.issuperset(names) else None
        object.__setattr__(self, "few", few)

    @classmethod
    def of(cls, settings: Settings, *, after: float) -> Rules:
        """Of the settings those that leave out anything."""
        parts = (settings.top_p, settings.typical_p, settings.epsilon_cutoff, settings.eta_cutoff)
        top_p, typical, epsilon, eta = (part if part is not None and 0 < part < 1 else None for part in parts)
        return cls(settings.top_h, settings.top_k, top_p, min(settings.min_p or 0.0, 1.0) or None, typical, epsilon, eta, after)

    def draw(self, ids: Ids, values: Numbers, number: float, total: Total | None = None) -> int | None:
        """The token at `number` in [0, 1) of the distribution that is left over; None: the total is not known closely enough, or
        top_p leaves over more tokens than are given.

        ids, values  int64[n], float32[n]: tokens in their order, and their logits less the largest, by the temperature
        total        of all tokens, where the first rule looks at them; None: these are all
        """
        if self.few is not None and len(ids) <= few_tokens.MOST:
            place = self.few.draw(values.tolist(), number, total)
            return None if place is None else int(ids.item(place))
        found = self._by_bounds(values, total) if self.has_bounds else self._in_order(values, total)
        if found is None:
            return None
        kept, doubtful = found
        heights = self._shares(values, kept).cumsum()
        place = place_of(heights, number, rest=0.0 if doubtful is None else float(self._shares(values, doubtful).sum()))
        return None if place is None else int(ids.item(kept.item(place)))

    def _shares(self, values: Numbers, places: Ids) -> Numbers:
        """float64[n], exp of some values, by the temperature behind the rules."""
        some = values.take(places)
        found: Numbers = numpy.exp(some if self.after == 1 else some / self.after, dtype=numpy.float64)
        return found

    def _by_bounds(self, values: Numbers, total: Total | None) -> tuple[Ids, Ids | None]:
        """The places of what is left over, in their order, and of what may be, by rules that ask for a bound."""
        least = -math.inf
        if self.top_k is not None and self.top_k < len(values):
            least = float(numpy.partition(values, len(values) - self.top_k)[len(values) - self.top_k])
        if self.min_p is not None:
            least = max(least, math.log(self.min_p))
        bound = least
        if self.epsilon is not None:
            if total is None:
                left = float(numpy.exp(values[values >= least], dtype=numpy.float64).sum())
                total = Total(left, left)
            bound, least = (max(least, min(math.log(self.epsilon * each), 0.0)) for each in (total.most, total.least))
        kept = (values >= bound).nonzero()[0]
        return kept, ((values >= least) & (values < bound)).nonzero()[0] if least < bound else None

    def _in_order(self, values: Numbers, total: Total | None) -> tuple[Ids, Ids | None] | None:
        """The same by any rules, each of which looks at the beginning of a row that is sorted, the likeliest first."""
        order = (-values).argsort(kind="stable")  # which of equals come first must not depend on how many were looked at
        values = values.take(order)
        shares = numpy.exp(values, dtype=numpy.float64)
        count = end = self._likeliest(values, shares)  # what is left over, and with what may be
        if self.top_p is not None:
            count, end = self._nucleus(shares[:count], self.top_p, total)
            if end > len(order) or (count < end and self.names != ("top_p",)):
                return None
            total = None  # the next rule looks at what this one has left over
        doubtful = order[count:end] if count < end else None
        if self.min_p is not None:
            count = _at_least(shares[:count], self.min_p)
        if self.typical is not None:
            kept, total = _typical(shares[:count], self.typical, total), None
            order, shares, count = order[:count][kept], shares[:count][kept], int(kept.sum())
        if self.epsilon is not None or self.eta is not None:
            least, most = self._cut(shares[:count], total)
            if least < most:
                return None
            count = most
        return numpy.sort(order[:count]), doubtful

    def _likeliest(self, values: Numbers, shares: Numbers) -> int:
        """How many top_h and top_k leave over."""
        count = len(values) if self.top_h is None else _by_entropy(shares, self.top_h)
        if self.top_k is None or self.top_k >= count:
            return count
        return self.top_k + int((values[self.top_k : count] == values[self.top_k - 1]).sum())

    def _nucleus(self, shares: Numbers, top_p: float, total: Total | None) -> tuple[int, int]:
        """How many top_p leaves over at least and at most; more than there are: they are not enough."""
        heights = shares.cumsum()
        if total is None:
            count = min(int(heights.searchsorted(top_p * heights.item(-1))) + 1, len(heights))
            return count, count
        least, most = heights.searchsorted((top_p * total.least, top_p * total.most)).tolist()
        return least + 1, most + 1

    def _cut(self, shares: Numbers, total: Total | None) -> tuple[int, int]:
        """How many epsilon_cutoff and eta_cutoff leave over at least and at most."""
        least = count = len(shares)
        if self.epsilon is not None:
            sums = (float(shares.sum()),) * 2 if total is None else (total.most, total.least)
            least, count = (_at_least(shares, self.epsilon * each) for each in sums)
            total = None
        if self.eta is not None and least == count:
            some = shares[:count] / (shares[:count].sum() if total is None else total.least)
            least = count = _at_least(some, eta_bound(self.eta, float(_entropies(some).sum()) if total is None else total.entropy))
        return least, count


def place_of(heights: Numbers, number: float, *, rest: float, rounded: float = 0.0) -> int | None:
    """The place at `number` in [0, 1) of a distribution; None: tokens that are not among these, and lie anywhere between them, decide.

    heights  float64[n]: the sums of the shares up to each;  rest  what others hold at most
    rounded  by this part of all of them the sums may be off
    """
    held = heights.item(-1)
    slack = rounded * held
    begins = number * held - (1 - number) * rest - slack  # with all of the rest before it a token begins latest
    place = int(heights.searchsorted(begins, side="right"))
    if not rest and not rounded:
        return min(place, len(heights) - 1)
    ends = number * (held + rest) + slack  # and with none of it it ends first
    return place if begins >= 0 and place < len(heights) and heights.item(place) > ends else None


def _at_least(shares: Numbers, bound: float) -> int:
    """How many at the beginning, the largest first, are at least so large; the largest always, and those that are as large."""
    return len(shares) - int(shares[::-1].searchsorted(min(bound, float(shares[0]))))


def _entropies(shares: Numbers) -> Numbers:
    """What each of some probabilities adds to their entropy."""
    found: Numbers = -shares * numpy.log(numpy.maximum(shares, TINY))
    return found


def _by_entropy(shares: Numbers, part: float) -> int:
    """How many of the likeliest hundred together hold a part of their entropy; those that are as likely as the likeliest always."""
    best = shares[:MOST_BY_ENTROPY]
    terms = _entropies(best / best.sum())
    held = int(terms.cumsum().searchsorted(part * terms.sum(), side="right"))
    return max(held, _at_least(shares, 1.0))


def eta_bound(eta: float, entropy: float) -> float:
    """The least probability that eta_cutoff leaves over."""
    return min(math.sqrt(eta) * math.exp(-entropy), eta)


def _typical(shares: Numbers, mass: float, total: Total | None) -> NDArray[numpy.bool_]:
    """The tokens whose surprise is nearest to the expected one, as many as hold so much probability; total: see `Rules.draw`."""
    shares = shares / (shares.sum() if total is None else total.least)
    entropy = _entropies(shares).sum() if total is None else total.entropy
    far = numpy.abs(-numpy.log(numpy.maximum(shares, TINY)) - entropy)
    order = far.argsort()
    reached = min(int((shares[order].cumsum() < mass).sum()), len(far) - 1)
    kept: NDArray[numpy.bool_] = far <= far[order[reached]]
    return kept
