"""The commonest rules, and the draw, on a few tokens as plain numbers: what `drawn_tokens` does with arrays where there are many.

Between two steps of a model every call of numpy costs a microsecond or more, whatever it does, and a rule takes several. Lists of some
dozens are as quick to go through.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

MOST = 128  # tokens: from about as many on arrays are faster


class Few(NamedTuple):
    """Some tokens in the order of their ids, their logits less the largest, by the temperature, and exp of these."""

    ids: Sequence[int]
    values: Sequence[float]
    shares: Sequence[float]

    def at(self, places: Sequence[int]) -> Few:
        """Those at some places."""
        ids, values, shares = self
        return Few([ids[at] for at in places], [values[at] for at in places], [shares[at] for at in places])

    def at_least(self, share: float) -> Few:
        """Those that have such a share or a larger one."""
        if min(self.shares) >= share:
            return self
        return self.at([place for place, own in enumerate(self.shares) if own >= share])


@dataclass(frozen=True, slots=True)
class Rules:
    """What leaves tokens out, in this order; None: it does not. `after`: what logits are divided by behind them."""

    top_k: int | None
    top_p: float | None
    min_p: float | None
    epsilon: float | None
    after: float = 1.0

    def draw(self, ids: Sequence[int], values: Sequence[float], number: float, total: float | None = None) -> int:
        """The token at `number` in [0, 1) of the distribution that the rules leave over.

        ids, values  see Few
        total        the sum of exp(value) over all tokens, where the first rule looks at them; None: these are all
        """
        kept = self._kept(Few(ids, values, list(map(math.exp, values))), total)
        shares = kept.shares if self.after == 1 else [math.exp(value / self.after) for value in kept.values]
        heights = list(accumulate(shares))
        return kept.ids[min(bisect_right(heights, number * heights[-1]), len(heights) - 1)]

    def _kept(self, tokens: Few, total: float | None) -> Few:
        """Those that the rules leave over."""
        if self.top_k is not None and self.top_k < len(tokens.ids):
            last = sorted(tokens.values)[-self.top_k]  # by their logits: shares of a high temperature are all 1
            tokens = tokens.at([place for place, value in enumerate(tokens.values) if value >= last])  # as likely as it: they stay as well
        if self.top_p is not None:
            order = sorted(range(len(tokens.ids)), key=tokens.values.__getitem__, reverse=True)  # equal ones in the order of their ids
            heights = list(accumulate(tokens.shares[place] for place in order))
            wanted, total = self.top_p * (heights[-1] if total is None else total), None
            tokens = tokens.at(sorted(order[: bisect_left(heights, wanted) + 1]))
        if self.min_p is not None:
            tokens = tokens.at_least(min(self.min_p, 1.0))  # the largest share is 1
        if self.epsilon is not None:
            tokens = tokens.at_least(min(self.epsilon * (sum(tokens.shares) if total is None else total), 1.0))
        return tokens
