"""The tokens near the likeliest one, which hold nearly all of a distribution, and a bound on what all others can hold.

The power of a whole vocabulary takes longer than everything else that a rule looks at. With a bound on what is not looked at most draws are
certain without it: whatever the others hold, the token is the same. Where it might not be, the whole is summed up.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy

from modelgraft.loops.likeliest_tokens import Sieve
from modelgraft.loops.narrowing import Total

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[numpy.floating[Any]]  # float[n]
    Ids = NDArray[numpy.integer[Any]]  # int64[n]

NEAR, FAR = 12.0, 17.0  # nats below the likeliest: what is nearer is looked at, what lies between is counted, as are those further away
MOST = 1 / 8  # of all tokens, that are no further than FAR: of more so many are near that the power of all costs no more
ROUNDED = 1e-5  # by this part a sum of shares in float32 may be off, which a draw that is certain must not notice
STEP = 2.0**-23  # to the next number in float32, as a part of one
NEWEST, SELDOM = 0.1, 0.3  # what the newest attempt counts among those before it; the share of them that helped, below which it is tried
RARELY = 8  # at every so many tokens only


class Near(NamedTuple):
    """Some tokens in the order of their ids, their logits less the largest, by the temperature, float32[n], and exp of these.

    heights  float64[n]: the sums of these shares up to each;  rest  what all other tokens hold together at most
    """

    ids: Ids
    values: Numbers
    shares: Numbers
    heights: Numbers
    rest: float

    @property
    def total(self) -> Total:
        """What all tokens hold, as arithmetic in float32 may have it."""
        held = self.heights.item(-1)
        return Total(held * (1 - ROUNDED), (held + self.rest) * (1 + ROUNDED))


class Seeker:
    """Looks for near tokens, and rarely where that has seldom helped."""

    def __init__(self, sieve: Sieve | None = None) -> None:
        self.sieve = sieve or Sieve()
        self.share = 1.0  # of the attempts that helped
        self.passed = 0  # tokens since it was tried

    def near(self, logits: Numbers, highest: float, temperature: float) -> Near | None:
        """Of float32[vocab] by a temperature, the largest of which is `highest`; None: there are many, or it is not tried."""
        self.passed += 1
        if self.share < SELDOM and self.passed < RARELY:
            return None
        self.passed = 0
        found = self._look(logits, highest, temperature)
        if found is None:
            self.told(helped=False)
        return found

    def told(self, *, helped: bool) -> None:
        """Whether what was found was enough."""
        self.share += NEWEST * (helped - self.share)

    def _look(self, logits: Numbers, highest: float, temperature: float) -> Near | None:
        """See `near`."""
        near, far = (highest - temperature * nats for nats in (NEAR, FAR))
        seen = int(numpy.count_nonzero(self.sieve.at_least(logits, far)))
        if seen > MOST * len(logits):
            return None
        ids = self.sieve.at_least(logits, near).nonzero()[0]
        between = seen - len(ids)
        rounding = STEP * (abs(highest) + temperature * FAR) / temperature  # in nats: a bound is rounded to float32
        nearer, further = (math.exp(min(rounding - nats, 0.0)) for nats in (NEAR, FAR))  # what each of them holds at most
        values = (logits.take(ids) - highest) / temperature
        shares = numpy.exp(values)
        heights = shares.cumsum(dtype=numpy.float64)
        return Near(ids, values, shares, heights, between * nearer + (len(logits) - len(ids) - between) * further)
