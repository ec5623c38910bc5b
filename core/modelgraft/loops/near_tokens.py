"""The tokens near the likeliest one, which hold nearly all of a distribution, and a bound on what all others can hold.

The power of a whole vocabulary takes longer than everything else that a rule looks at. With a bound on what is not looked at most draws are
certain without it: whatever the others hold, the token, or the set of tokens, is the same. Where it might not be, the whole is summed up.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[numpy.floating[Any]]  # float[n]
    Ids = NDArray[numpy.integer[Any]]  # int64[n]

NEAR, FAR = 12.0, 17.0  # nats below the likeliest: what is nearer is looked at, what lies between is counted, as are those further away
MOST = 1024  # near tokens: of more the power of all costs no more
LIKELY = 1e-3  # of what the near ones hold; tokens at least so likely hold top_p in most texts
ROUNDED = 1e-5  # by this part a sum of shares in float32 may be off, which a draw that is certain must not notice
LONGEST = 5  # times in a row that it did not help, behind which it is not tried for 2 to the power of as many tokens


@dataclass(frozen=True, slots=True)
class Near:
    """Some tokens in the order of their ids, and their shares, exp(value - the largest) in float64.

    held  the sum of these shares;  rest  what all others hold together at most;  next  what one of these holds at most
    """

    ids: Ids
    shares: Numbers
    held: float
    rest: float
    next: float

    def at(self, number: float) -> int | None:
        """The token at `number` in [0, 1) of the whole distribution; None: what the rest holds, and where, decides."""
        heights, rounded = self.shares.cumsum(), ROUNDED * self.held
        # With all of the rest before it the token begins latest, with none of it it ends first.
        begins, ends = number * self.held - (1 - number) * self.rest - rounded, number * (self.held + self.rest) + rounded
        first, last = heights.searchsorted((begins, ends), side="right")
        return int(self.ids[first]) if begins >= 0 and first == last < len(heights) else None

    def nucleus(self, part: float) -> Ids | None:
        """Tokens among which are the fewest that hold so much of the whole; None: the rest decides."""
        for least in (LIKELY * self.held, 0.0):
            some = sorted(self.shares[self.shares >= least].tolist(), reverse=True)
            heights = list(accumulate(some))
            first, last = (bisect_left(heights, part * total) for total in self._totals())
            if last < len(some):
                return self.ids[self.shares >= some[last] * (1 - ROUNDED)] if first == last else None
        return None

    def likely(self, part: float) -> Ids | None:
        """Tokens among which are all that have such a part of the whole or more, and the likeliest; None: the rest decides."""
        least, most = (min(part * total, 1 - ROUNDED) for total in self._totals())
        more, fewer = self.shares >= least, self.shares >= most
        return self.ids[more] if least > self.next and more.sum() == fewer.sum() else None

    def _totals(self) -> tuple[float, float]:
        """The whole at least and at most, as arithmetic in float32 may have it."""
        return self.held * (1 - ROUNDED), (self.held + self.rest) * (1 + ROUNDED)


class Seeker:
    """Looks for near tokens, but for a while not where that has not helped."""

    def __init__(self) -> None:
        self.failed = 0  # times in a row
        self.pause = 0  # tokens for which it is not tried

    def near(self, logits: Numbers, highest: float, temperature: float) -> Near | None:
        """Of float32[vocab] by a temperature, the largest of which is `highest`; None: there are many, or it is not tried."""
        if self.pause:
            self.pause -= 1
            return None
        found = _near(logits, highest, temperature)
        if found is None:
            self.told(helped=False)
        return found

    def told(self, *, helped: bool) -> None:
        """Whether what was found was enough."""
        self.failed = 0 if helped else min(self.failed + 1, LONGEST)
        self.pause = 2**self.failed - 2 if self.failed else 0


def _near(logits: Numbers, highest: float, temperature: float) -> Near | None:
    """See Seeker.near."""
    near, far = (numpy.float32(highest - temperature * nats) for nats in (NEAR, FAR))
    ids = (logits >= near).nonzero()[0]
    if len(ids) > MOST:
        return None
    shares = numpy.exp((logits.take(ids).astype(numpy.float64) - highest) / temperature)
    between = int(numpy.count_nonzero(logits >= far)) - len(ids)
    nearer, further = (math.exp((float(bound) - highest) / temperature) for bound in (near, far))  # what each of them holds at most
    rest = between * nearer + (len(logits) - len(ids) - between) * further
    return Near(ids, shares, float(shares.sum()), rest, nearer)
