"""The likeliest tokens of a vocabulary, without sorting it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[numpy.floating[Any]]  # float[n]
    Ids = NDArray[numpy.integer[Any]]  # int64[n]

WIDTH = 1024  # groups that a vocabulary is looked at in, those of each at this distance: their maxima are a single fast pass
MOST = WIDTH // 4  # tokens: of more a group may hold many, and the bound lies low
SPARE = 1e-6  # by this part a bound is lowered: a division by the temperature may make unlike logits alike


class Sieve:
    """Finds tokens by how large their logits are, float32[vocab].

    It keeps memory for what it compares: between two steps of a model memory that was just asked for is fetched from far.
    """

    def __init__(self) -> None:
        self.mask: NDArray[numpy.bool_] = numpy.empty(0, numpy.bool_)  # [vocab]

    def at_least(self, logits: Numbers, bound: float) -> NDArray[numpy.bool_]:
        """Which are at least so large, bool[vocab]; it holds until the next question."""
        if len(self.mask) != len(logits):
            self.mask = numpy.empty(len(logits), numpy.bool_)
        return numpy.greater_equal(logits, bound, out=self.mask)

    def above(self, logits: Numbers, bound: float) -> Ids:
        """The tokens whose logit is at least so large, or nearly."""
        found: Ids = self.at_least(logits, bound - abs(bound) * SPARE).nonzero()[0]
        return found

    def likeliest(self, logits: Numbers, count: int) -> Ids:
        """The so many likeliest tokens and those that are as likely as the last of them, among a few more; in the order of their ids.

        count  at least 1
        """
        size = len(logits)
        if count >= size:
            return numpy.arange(size)
        if count > MOST or size < 2 * WIDTH:
            return self.above(logits, float(numpy.partition(logits, size - count)[size - count]))
        whole = size - size % WIDTH
        maxima = numpy.maximum.reduce(logits[:whole].reshape(-1, WIDTH), 0)
        if whole < size:
            numpy.maximum(maxima[: size - whole], logits[whole:], out=maxima[: size - whole])
        # each group holds one at least: the count-th of their maxima bounds what is looked for
        return self.above(logits, float(numpy.partition(maxima, WIDTH - count)[WIDTH - count]))
