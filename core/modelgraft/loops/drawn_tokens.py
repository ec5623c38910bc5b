"""One token drawn from logits on the host: what `narrow` and `draw` of drawn_in_torch.py do, without looking at a vocabulary several times.

A vocabulary of 50,000 takes ten times as long to sort or to sum in float64 as to read once. So it is read once or twice, to find the few
tokens that a rule may leave over; the rules then look at these. The draws are those of drawn_in_torch.py for the same number, up to
rounding; tests compare the two.

All of it is numpy's, by the thread that calls: torch would take several for a vocabulary, and these look for work for milliseconds after
each operation, on the cores that a session needs for the next step.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy

from modelgraft.loops.likeliest_tokens import Sieve
from modelgraft.loops.narrowing import Rules, Total, eta_bound, place_of
from modelgraft.loops.near_tokens import NEAR, ROUNDED, Near, Seeker
from modelgraft.loops.settings import MOST_BY_ENTROPY, Settings
from modelgraft.loops.whole_tokens import WholeTokens

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[numpy.floating[Any]]  # float[n]
    Ids = NDArray[numpy.integer[Any]]  # int64[n]

LIKELY, NEARLY_ALL = 1e-3, 1e-5  # tokens at least so likely hold top_p in most texts, and in nearly all
COLDEST = 1e-30  # the least temperature that is divided by: whatever is below chooses the likeliest as well, and might leave float32
HOTTEST = 1e30  # the largest: whatever is above makes all tokens alike as well, and might leave float32
NEARLY = (3.0, 8.0, 20.0)  # nats from the expected surprise, within which typical_p finds its mass in most texts
TYPICALLY = 1e-4  # so much more must be found there


def temperatures(settings: Settings) -> tuple[float, float]:
    """What logits are divided by before the rules look at them, and behind these."""
    temperature = min(max(settings.temperature, COLDEST), HOTTEST)
    return (1.0, temperature) if settings.temperature_last else (temperature, 1.0)


class Drawer:
    """Draws tokens under some settings; it keeps memory for one row of logits."""

    def __init__(self, settings: Settings) -> None:
        self.before, self.after = temperatures(settings)
        self.rules = Rules.of(settings, after=self.after)
        self.first = next(iter(self.rules.names), None)  # the rule that looks at all tokens
        self.highest = 0.0  # the largest logit
        self.sieve, self.whole = Sieve(), WholeTokens()
        self.seeker = Seeker(self.sieve)

    def draw(self, logits: Numbers, number: float, highest: float | None = None) -> int:
        """The token at `number` in [0, 1) of the distribution that the rules leave over.

        logits   float32[vocab], the largest of which is finite
        highest  that one, where it is known
        """
        self.highest = float(logits.max()) if highest is None else highest
        rules = self.rules
        if self.first is None:
            return self._draw_of_all(logits, number)
        if self.first == "top_p" or (self.first == "epsilon" and (rules.epsilon or 0.0) > math.exp(-NEAR) * (1 + ROUNDED)):
            return self._draw_by_total(logits, number)
        total = None
        if self.first == "top_h":
            ids = self.sieve.likeliest(logits, MOST_BY_ENTROPY)
        elif self.first == "top_k":
            ids = self.sieve.likeliest(logits, rules.top_k or 1)
        elif self.first == "min_p":
            ids = self.sieve.above(logits, self.highest + self.before * math.log(rules.min_p or 1.0))
        else:
            total = self.whole.total_and_entropy(logits, self.highest, self.before)
            ids = self._usual(logits, total)
        return self._drawn(logits, ids, number, total)

    def _values(self, logits: Numbers, ids: Ids) -> Numbers:
        """float32[n]: less the largest, by the temperature."""
        values: Numbers = (logits.take(ids) - self.highest) / self.before  # in float32: a number of Python has no type of its own to numpy
        return values

    def _drawn(self, logits: Numbers, ids: Ids, number: float, total: Total | None) -> int:
        """The token at a number of those that the rules leave over of some."""
        token = self.rules.draw(ids, self._values(logits, ids), number, total)
        assert token is not None  # the total is known, and those that the first rule leaves over are among these
        return token

    def _draw_of_all(self, logits: Numbers, number: float) -> int:
        """Draw where no rule leaves anything out."""
        temperature = self.before * self.after
        if near := self.seeker.near(logits, self.highest, temperature):
            place = place_of(near.heights, number, rest=near.rest, rounded=ROUNDED)
            self.seeker.told(helped=place is not None)
            if place is not None:
                return int(near.ids.item(place))
        return self.whole.draw(logits, number, self.highest, temperature)

    def _draw_by_total(self, logits: Numbers, number: float) -> int:
        """Draw where the first rule asks for a part of the whole."""
        near = self.seeker.near(logits, self.highest, self.before)
        token = None
        if near is not None:
            token = self._among(near, number, near.total)
            self.seeker.told(helped=token is not None)
        if token is None:
            total = self.whole.total(logits, self.highest, self.before)
            token = self._by_whole(logits, near, number, total)
        return token

    def _among(self, near: Near, number: float, total: Total) -> int | None:
        """The token, where some tokens are certainly enough to tell it."""
        if self.first == "top_p":
            likely = (near.shares >= LIKELY * total.least).nonzero()[0]
            token = self.rules.draw(near.ids.take(likely), near.values.take(likely), number, total)
            if token is not None:
                return token
        return self.rules.draw(near.ids, near.values, number, total)

    def _by_whole(self, logits: Numbers, near: Near | None, number: float, total: Total) -> int:
        """The token where the total is known; near: tokens that were looked at already."""
        if near is not None and (token := self._among(near, number, total)) is not None:
            return token
        least = (1 - (self.rules.top_p or 0.0)) / len(logits) / 2  # all that are less likely hold less than is left over
        for share in (self.rules.epsilon,) if self.first == "epsilon" else (LIKELY, NEARLY_ALL, least):
            bound = min(math.log(max((share or 0.0) * total.least, 1e-30)) - ROUNDED, 0.0)
            ids = self.sieve.above(logits, self.highest + self.before * bound)
            token = self.rules.draw(ids, self._values(logits, ids), number, total)
            if token is not None:
                return token
        return self._drawn(logits, numpy.arange(len(logits)), number, None)

    def _usual(self, logits: Numbers, total: Total) -> Ids:
        """Tokens among which are all that typical_p, epsilon_cutoff or eta_cutoff leaves over, whichever is first."""
        log_total, rules = math.log(total.least), self.rules
        if rules.typical is None:
            least = rules.epsilon if rules.epsilon is not None else eta_bound(rules.eta or 0.0, total.entropy)
            return self.sieve.above(logits, self.highest + self.before * min(math.log(least) + log_total - ROUNDED, 0.0))
        for far in NEARLY:  # that are no further from the expected surprise: the rarest of them bounds all that are looked at
            ids = self.sieve.above(logits, self.highest + self.before * (log_total - total.entropy - far))
            surprise = log_total - (logits[ids].astype(numpy.float64) - self.highest) / self.before
            there = numpy.abs(surprise - total.entropy) <= far
            if float(numpy.exp(-surprise[there]).sum()) > rules.typical + TYPICALLY:
                return ids
        return numpy.arange(len(logits))
