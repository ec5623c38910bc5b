"""A distribution over a whole vocabulary: the sums of its shares, and the draw from it.

The power is taken in float32, and what is summed up goes into float64 by blocks.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy

from modelgraft.loops.narrowing import Total

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[numpy.floating[Any]]  # float[n]

BLOCK = 256  # tokens that are summed up before the sum goes into float64
PLAIN_NATS = 60.0  # nats: logits within it by the temperature have powers in float32, and so have all whose share counts beside the largest


@lru_cache(maxsize=1)
def _power() -> tuple[Any, float]:
    """The function that is the faster power in float32 here, and what it takes for a nat: 2 to the x where numpy has it for this
    processor, which takes two thirds of e to the x; else that. `Any`: one of numpy's functions of each element."""
    introspect = getattr(numpy.lib, "introspect", None)  # of numpy 2
    known = introspect.opt_func_info(func_name="^exp2$", signature="float32") if introspect is not None else {}
    ways = [way["current"] for ways in known.values() for way in ways.values()]
    is_fast = any(way and not way.startswith("baseline") for way in ways)
    return (numpy.exp2, 1 / math.log(2)) if is_fast else (numpy.exp, 1.0)


class WholeTokens:
    """Memory for the shares of one row of logits after the other."""

    def __init__(self) -> None:
        self.power, self.per_nat = _power()
        self.exponents: Numbers = numpy.empty(0, numpy.float32)  # of the power that shares are, where the entropy is asked for
        self.blocks: Numbers = numpy.empty((0, BLOCK), numpy.float32)  # `shares`, filled up with 0 to whole blocks
        self.shares: Numbers = numpy.empty(0, numpy.float32)  # exp((logits - some number) / temperature)

    def total(self, logits: Numbers, highest: float, temperature: float) -> Total:
        """Of float32[vocab], the largest of which is `highest`, by a temperature."""
        most = self._share(logits, highest, temperature)
        total = float(self._heights().sum()) / most
        return Total(total, total)

    def total_and_entropy(self, logits: Numbers, highest: float, temperature: float) -> Total:
        """The same with the entropy."""
        if len(self.exponents) != len(logits):
            self.exponents = numpy.empty(len(logits), numpy.float32)
        most = self._share(logits, highest, temperature, self.exponents)
        total, shares, exponents = float(self._heights().sum()), self.shares, self.exponents
        summed = float(numpy.einsum("i,i->", shares, exponents))
        if not math.isfinite(summed):  # what is forbidden has no share, and must not make one that is no number
            numpy.copyto(exponents, 0, where=shares == 0)
            summed = float(numpy.einsum("i,i->", shares, exponents))
        return Total(total / most, total / most, math.log(total) - summed / self.per_nat / total)

    def draw(self, logits: Numbers, number: float, highest: float, temperature: float) -> int:
        """The token at `number` in [0, 1): the block by sums in float64, then the token in it."""
        self._share(logits, highest, temperature)
        heights = self._heights().cumsum()
        wanted = number * float(heights[-1])
        block = min(int(heights.searchsorted(wanted, side="right")), len(heights) - 1)
        inside = self.blocks[block].astype(numpy.float64).cumsum()
        left = wanted - (float(heights[block - 1]) if block else 0.0)
        if left >= inside[-1]:  # a block's two sums differ by rounding: the last that can be drawn
            return block * BLOCK + int(inside.searchsorted(inside[-1]))
        return block * BLOCK + int(inside.searchsorted(left, side="right"))

    def _share(self, logits: Numbers, highest: float, temperature: float, exponents: Numbers | None = None) -> float:
        """Fill `shares`, and `exponents` where they are asked for; gives what the largest share is."""
        count = len(logits)
        if len(self.shares) != count:
            self.blocks = numpy.zeros((-(-count // BLOCK), BLOCK), numpy.float32)
            self.shares = self.blocks.reshape(-1)[:count]
        exponents = self.shares if exponents is None else exponents  # in one place: what is not written need not leave the cache
        times = numpy.float32(self.per_nat / temperature)
        is_plain = abs(highest) <= PLAIN_NATS * temperature
        if not is_plain:
            logits = numpy.subtract(logits, numpy.float32(highest), out=exponents)
        with numpy.errstate(over="ignore", under="ignore"):  # what is far below the likeliest has no share
            numpy.multiply(logits, times, out=exponents)
            self.power(exponents, out=self.shares)
        return math.exp(float(times) * highest / self.per_nat) if is_plain else 1.0

    def _heights(self) -> Numbers:
        """float64[blocks], the sum of the shares of each."""
        sums: Numbers = numpy.einsum("ij->i", self.blocks)  # a third of what sum(1) takes
        return sums.astype(numpy.float64)
