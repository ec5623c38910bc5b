"""One token drawn from logits on the host: what `narrow` and `draw` of drawn_in_torch.py do, without looking at a vocabulary several times.

A torch operation costs microseconds whatever it does, and a vocabulary of 50,000 takes ten times as long to sort or to sum in float64 as to
read once. So the vocabulary is read once or twice, in groups, to find the few tokens that a rule may leave over; the rules then look at
these. The draws are those of drawn_in_torch.py for the same number, up to rounding; tests compare the two.

All of it is numpy's, by the thread that calls: torch would take several for a vocabulary, and these look for work for milliseconds after
each operation, on the cores that a session needs for the next step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy

from modelgraft.loops import few_tokens
from modelgraft.loops.near_tokens import Near, Seeker
from modelgraft.loops.settings import MOST_BY_ENTROPY, Settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[numpy.floating[Any]]  # float[n]
    Ids = NDArray[numpy.integer[Any]]  # int64[n]

Looked = TypeVar("Looked")
WIDTH = 512  # a vocabulary is looked at in rows of so many, whose elementwise maximum is a single fast pass
LEAST_SHARES = (1e-3, 1e-5)  # tokens at least so likely hold top_p in most texts, and in nearly all
BLOCK = 256  # tokens that are summed up before the sum goes into float64
TINY = 1e-300  # what has no share adds nothing, and has a logarithm
COLDEST = 1e-30  # the least temperature that is divided by: whatever is below chooses the likeliest as well, and might leave float32
HOTTEST = 1e30  # the largest: whatever is above makes all tokens alike as well, and might leave float32
PLAIN_NATS = 60.0  # nats: logits within it by the temperature have powers in float32, and so have all whose share counts beside the largest
NEARLY = (3.0, 8.0, 20.0)  # nats from the expected surprise, within which typical_p finds its mass in most texts
TYPICALLY = 1e-4  # so much more must be found there
SPARE = 1e-6  # by this part a bound is lowered: a division by the temperature may make unlike logits alike
UNSORTED = frozenset({"top_k", "min_p", "epsilon"})  # rules that look at the largest and at a bound
COMMON = UNSORTED | {"top_p"}  # rules that a few tokens are looked at for one by one
FURTHER, CLOSER, MANY = 1.2, 0.9, 8  # how top_k's look below the largest follows the texts: so many times the tokens are too many
ROUNDED = 1e-5  # by this part sums of shares may be off: their exponents are float32, and up to PLAIN_NATS


def temperatures(settings: Settings) -> tuple[float, float]:
    """What logits are divided by before the rules look at them, and behind these."""
    temperature = min(max(settings.temperature, COLDEST), HOTTEST)
    return (1.0, temperature) if settings.temperature_last else (temperature, 1.0)


@lru_cache(maxsize=1)
def _power() -> tuple[Any, float]:
    """The function that is the faster power in float32 here, and what it takes for a nat: 2 to the x where numpy has it for this
    processor, which takes two thirds of e to the x; else that. `Any`: one of numpy's functions of each element."""
    introspect = getattr(numpy.lib, "introspect", None)  # of numpy 2
    known = introspect.opt_func_info(func_name="^exp2$", signature="float32") if introspect is not None else {}
    ways = [way["current"] for ways in known.values() for way in ways.values()]
    is_fast = any(way and not way.startswith("baseline") for way in ways)
    return (numpy.exp2, 1 / math.log(2)) if is_fast else (numpy.exp, 1.0)


@dataclass(frozen=True, slots=True)
class _Whole:
    """A distribution over all tokens: the sum of exp(value - the largest), and the entropy, which only some rules ask for."""

    total: float
    entropy: float = 0.0


class Drawer:
    """Draws tokens under some settings; it keeps memory for one row of logits."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.before, self.after = temperatures(settings)
        self.top_p, self.typical, self.epsilon, self.eta = (
            part if part is not None and 0 < part < 1 else None
            for part in (settings.top_p, settings.typical_p, settings.epsilon_cutoff, settings.eta_cutoff)
        )
        rules = {"top_k": settings.top_k, "top_h": settings.top_h, "top_p": self.top_p, "min_p": settings.min_p or None}
        rules |= {"typical": self.typical, "epsilon": self.epsilon, "eta": self.eta}
        self.rules = frozenset(name for name, rule in rules.items() if rule is not None)
        self.few = few_tokens.Rules(settings.top_k, self.top_p, settings.min_p, self.epsilon, self.after) if self.rules <= COMMON else None
        self.highest = 0.0  # the largest logit
        self.gap = 0.0  # how far below it top_k looks first: somewhat further than it had to for the tokens before; 0: not known
        self.seeker = Seeker()
        self.power, self.per_nat = _power()
        self.exponents: Numbers = numpy.empty(0, numpy.float32)  # of the power that shares are, where a rule asks for the entropy
        self.blocks: Numbers = numpy.empty((0, BLOCK), numpy.float32)  # `shares`, filled up with 0 to whole blocks
        self.shares: Numbers = numpy.empty(0, numpy.float32)  # exp((logits - some number) / temperature)

    def draw(self, logits: Numbers, number: float, highest: float | None = None) -> int:
        """The token at `number` in [0, 1) of the distribution that the rules leave over.

        logits   float32[vocab], the largest of which is finite
        highest  that one, where it is known
        """
        settings = self.settings
        whole: _Whole | None = None  # where a rule looks at all tokens
        self.highest = highest = float(logits.max()) if highest is None else highest
        if settings.top_h is not None:
            ids = _likeliest(logits, MOST_BY_ENTROPY)
        elif settings.top_k is not None and settings.top_k < len(logits):
            ids = self._likeliest(logits, settings.top_k)
        elif self.top_p is not None:
            ids, whole = self._nucleus(logits, self.top_p)
        elif settings.min_p:
            ids = _above(logits, highest + self.before * math.log(settings.min_p))
        elif self.typical is not None or self.epsilon is not None or self.eta is not None:
            ids, whole = self._usual(logits)
        else:
            return self._draw_of_all(logits, number)
        values = (logits.take(ids) - highest) / self.before  # in float32: a number of Python has no type of its own to numpy
        if self.few is not None and len(ids) > few_tokens.MOST and settings.top_k is not None:
            ids, values = _top(ids, values, settings.top_k)
        if self.few is not None and len(ids) <= few_tokens.MOST:
            return self.few.draw(ids.tolist(), values.tolist(), number, None if whole is None else whole.total)
        if len(self.rules) == 1 and self.rules <= UNSORTED:  # the commonest: nothing has to be sorted
            ids, values = self._kept(ids, values, whole)
            return _at(ids, numpy.exp(values.astype(numpy.float64) / self.after), number)
        order = (-values).argsort(kind="stable")  # which of equals come first must not depend on how many were looked at
        ids, values, shares = self._narrowed(ids.take(order), values.take(order), whole)
        if self.after != 1:
            shares = numpy.exp((values.astype(numpy.float64) - values[0]) / self.after)
        order = ids.argsort()
        return _at(ids.take(order), shares.take(order), number)

    def _kept(self, ids: Ids, values: Numbers, whole: _Whole | None) -> tuple[Ids, Numbers]:
        """Of some tokens those that the only rule leaves over, in their order."""
        if self.settings.top_k is not None:
            return _top(ids, values, self.settings.top_k)
        least = self.settings.min_p or 0.0 if whole is None else (self.epsilon or 0.0) * whole.total
        is_kept = numpy.exp(values.astype(numpy.float64)) >= min(least, 1.0)
        return ids[is_kept], values[is_kept]

    def _likeliest(self, logits: Numbers, count: int) -> Ids:
        """Tokens among which are the so many likeliest and those that are as likely as the last of them; in order of their ids."""
        if self.gap:
            ids = _above(logits, self.highest - self.gap)
            if len(ids) >= count:
                self.gap *= CLOSER if len(ids) > MANY * count else 1.0
                return ids
        ids = _likeliest(logits, count)
        gap = FURTHER * (self.highest - float(logits.take(ids).min()))
        self.gap = gap if math.isfinite(gap) else 0.0
        return ids

    def _shared(self, logits: Numbers, temperature: float, *, has_exponents: bool = False) -> float:
        """Fill `shares`, and `exponents` where they are asked for; gives what the largest share is."""
        count = len(logits)
        if len(self.shares) != count:
            self.exponents = numpy.empty(count if self.typical is not None or self.eta is not None else 0, numpy.float32)
            self.blocks = numpy.zeros((-(-count // BLOCK), BLOCK), numpy.float32)
            self.shares = self.blocks.reshape(-1)[:count]
        exponents = self.exponents if has_exponents else self.shares  # in one place: what is not written need not leave the cache
        times = numpy.float32(self.per_nat / temperature)
        is_plain = abs(self.highest) <= PLAIN_NATS * temperature
        if not is_plain:
            logits = numpy.subtract(logits, numpy.float32(self.highest), out=exponents)
        with numpy.errstate(over="ignore", under="ignore"):  # what is far below the likeliest has no share
            numpy.multiply(logits, times, out=exponents)
            self.power(exponents, out=self.shares)
        return math.exp(float(times) * self.highest / self.per_nat) if is_plain else 1.0

    def _heights(self) -> Numbers:
        """float64[blocks], the sum of the shares of each."""
        sums: Numbers = numpy.einsum("ij->i", self.blocks)  # a third of what sum(1) takes
        return sums.astype(numpy.float64)

    def _total(self, logits: Numbers) -> float:
        """The sum of exp(value - the largest)."""
        most = self._shared(logits, self.before)
        return float(self._heights().sum()) / most

    def _seen(self, logits: Numbers, temperature: float, look: Callable[[Near], Looked | None]) -> tuple[Looked, Near] | None:
        """What is certain by the tokens near the likeliest; None: the whole must be looked at."""
        near = self.seeker.near(logits, self.highest, temperature)
        found = None if near is None else look(near)
        if near is not None:
            self.seeker.told(helped=found is not None)
        return None if near is None or found is None else (found, near)

    def _nucleus(self, logits: Numbers, top_p: float) -> tuple[Ids, _Whole]:
        """Tokens among which are the fewest that hold top_p; the whole, or what gives the same nucleus."""
        if seen := self._seen(logits, self.before, lambda near: near.nucleus(top_p)):
            return seen[0], _Whole(seen[1].held)
        whole = _Whole(self._total(logits))
        return self._beginning(logits, top_p, whole.total), whole

    def _beginning(self, logits: Numbers, top_p: float, total: float) -> Ids:
        """Tokens among which are the fewest that hold so much of a total."""
        wanted = (top_p * (1 + ROUNDED) + SPARE) * total
        likely, nearly = (total * least for least in LEAST_SHARES)
        ids = _above(logits, self.highest + self.before * min(math.log(nearly), 0.0))
        shares = numpy.exp((logits.take(ids).astype(numpy.float64) - self.highest) / self.before)
        is_likely = shares >= likely
        if float(shares[is_likely].sum()) > wanted:
            return ids[is_likely]
        if float(shares.sum()) > wanted:
            return ids
        least = max((1 - top_p) / len(logits) / 2, 1e-30)  # all that are less likely hold less than is left over
        return _above(logits, self.highest + self.before * math.log(total * least))

    def _draw_of_all(self, logits: Numbers, number: float) -> int:
        """Draw where no rule leaves anything out: the block by sums in float64, then the token in it."""
        if seen := self._seen(logits, self.before * self.after, lambda near: near.at(number)):
            return seen[0]
        self._shared(logits, self.before * self.after)
        heights = self._heights().cumsum()
        wanted = number * float(heights[-1])
        block = min(int(heights.searchsorted(wanted, side="right")), len(heights) - 1)
        inside = self.blocks[block].astype(numpy.float64).cumsum()
        left = wanted - (float(heights[block - 1]) if block else 0.0)
        if left >= inside[-1]:  # a block's two sums differ by rounding: the last that can be drawn
            return block * BLOCK + int(inside.searchsorted(inside[-1]))
        return block * BLOCK + int(inside.searchsorted(left, side="right"))

    def _whole(self, logits: Numbers) -> _Whole:
        """What the rules must know that look at all tokens."""
        has_exponents = self.typical is not None or self.eta is not None
        most = self._shared(logits, self.before, has_exponents=has_exponents)
        total = float(self._heights().sum())
        if not has_exponents:
            return _Whole(total / most)
        shares, exponents = self.shares, self.exponents
        summed = float(numpy.einsum("i,i->", shares, exponents))
        if not math.isfinite(summed):  # what is forbidden has no share, and must not make one that is no number
            numpy.copyto(exponents, 0, where=shares == 0)
            summed = float(numpy.einsum("i,i->", shares, exponents))
        return _Whole(total / most, math.log(total) - summed / self.per_nat / total)

    def _usual(self, logits: Numbers) -> tuple[Ids, _Whole]:
        """Tokens among which are all that typical_p leaves over, or else the first of epsilon_cutoff and eta_cutoff that there is."""
        epsilon = self.epsilon if self.typical is None else None
        if epsilon is not None and (seen := self._seen(logits, self.before, lambda near: near.likely(epsilon))):
            return seen[0], _Whole(seen[1].held)
        whole = self._whole(logits)
        return self._usual_of(logits, whole), whole

    def _usual_of(self, logits: Numbers, whole: _Whole) -> Ids:
        """See `_usual`."""
        highest, log_total = self.highest, math.log(whole.total)
        if self.typical is None:
            least = self.epsilon if self.epsilon is not None else _eta(self.eta or 0.0, whole.entropy)
            return _above(logits, highest + self.before * min(math.log(least) + log_total - ROUNDED, 0.0))
        for far in NEARLY:  # that are no further from the expected surprise: the rarest of them bounds all that are looked at
            bound = highest + self.before * (log_total - whole.entropy - far)
            ids = _above(logits, bound)
            surprise = log_total - (logits[ids].astype(numpy.float64) - highest) / self.before
            there = numpy.abs(surprise - whole.entropy) <= far
            if float(numpy.exp(-surprise[there]).sum()) > self.typical + TYPICALLY:
                return ids
        return numpy.arange(len(logits))

    def _narrowed(self, ids: Ids, values: Numbers, whole: _Whole | None) -> tuple[Ids, Numbers, Numbers]:
        """What the rules in their turn leave over, each the beginning of a row that is sorted: tokens, values and shares.

        values  float32[n]: the logits of `ids` by the temperature, the largest first
        whole   of all tokens, where the first rule looks at them; None: these are all
        """
        settings, count = self.settings, len(values)
        shares = numpy.exp(values.astype(numpy.float64) - values[0])
        if settings.top_h is not None:
            count = _by_entropy(shares, settings.top_h)
        if settings.top_k is not None and settings.top_k < count:
            least, count = values[settings.top_k - 1], settings.top_k
            count += int((values[count:] == least).sum())
        heights = shares.cumsum()
        if self.top_p is not None:
            wanted = self.top_p * (float(heights[count - 1]) if whole is None else whole.total)
            whole = None  # the next rule looks at what this one has left over
            count = min(count, int(heights[:count].searchsorted(wanted)) + 1)
        if settings.min_p is not None:
            count = _at_least(shares[:count], settings.min_p)
        if self.typical is not None:
            kept, whole = _typical(shares[:count], self.typical, whole), None
            ids, values, shares = ids[:count][kept], values[:count][kept], shares[:count][kept]
            count = len(ids)
        if self.epsilon is not None:
            count = _at_least(shares[:count], self.epsilon * (float(shares[:count].sum()) if whole is None else whole.total))
            whole = None
        if self.eta is not None:
            some = shares[:count] / (shares[:count].sum() if whole is None else whole.total)
            count = _at_least(some, _eta(self.eta, float(_entropies(some).sum()) if whole is None else whole.entropy))
        return ids[:count], values[:count], shares[:count]


def _above(logits: Numbers, bound: float) -> Ids:
    """The tokens whose logit is at least so large, or nearly."""
    found: Ids = (logits >= bound - abs(bound) * SPARE).nonzero()[0]
    return found


def _likeliest(logits: Numbers, count: int) -> Ids:
    """The so many likeliest tokens and those that are as likely as the last of them, among a few more; in order of their ids."""
    height = len(logits) // WIDTH
    if count >= WIDTH or not height:
        return numpy.arange(len(logits))
    columns = (
        logits[: height * WIDTH].reshape(height, WIDTH).max(0)
    )  # each holds one at least: the count-th of these bounds what is looked for
    bound = float(numpy.partition(columns, WIDTH - count)[WIDTH - count])
    return _above(logits, bound)


def _top(ids: Ids, values: Numbers, count: int) -> tuple[Ids, Numbers]:
    """Of some tokens the so many likeliest and those that are as likely as the last of them."""
    if len(ids) <= count:
        return ids, values
    is_kept = values >= numpy.partition(values, len(values) - count)[len(values) - count]
    return ids[is_kept], values[is_kept]


def _at(ids: Ids, shares: Numbers, number: float) -> int:
    """The token at `number` in [0, 1) of the distribution function, tokens in order of their ids."""
    heights = shares.cumsum()
    found = int(heights.searchsorted(number * heights[-1], side="right"))
    return int(ids[min(found, len(ids) - 1)])


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


def _eta(eta: float, entropy: float) -> float:
    """The least probability that eta_cutoff leaves over."""
    return min(math.sqrt(eta) * math.exp(-entropy), eta)


def _typical(shares: Numbers, mass: float, whole: _Whole | None) -> NDArray[numpy.bool_]:
    """The tokens whose surprise is nearest to the expected one, as many as hold so much probability; whole: see `_narrowed`."""
    shares = shares / (shares.sum() if whole is None else whole.total)
    entropy = _entropies(shares).sum() if whole is None else whole.entropy
    far = numpy.abs(-numpy.log(numpy.maximum(shares, TINY)) - entropy)
    order = far.argsort()
    reached = min(int((shares[order].cumsum() < mass).sum()), len(far) - 1)
    kept: NDArray[numpy.bool_] = far <= far[order[reached]]
    return kept
