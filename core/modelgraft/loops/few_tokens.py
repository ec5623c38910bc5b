"""The commonest rules, and the draw, on a few tokens as plain numbers: what narrowing.py does with arrays where there are more.

Between two steps of a model every call of numpy costs a microsecond or more, whatever it does, and a rule takes several. Lists of a dozen
or two are gone through sooner.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

MOST = 32  # tokens: of more arrays are faster


class FewRules(NamedTuple):
    """What leaves tokens out, in this order; None: it does not. `after`: what values are divided by behind them."""

    top_k: int | None
    top_p: float | None
    min_p: float | None
    epsilon: float | None
    after: float

    def draw(self, values: Sequence[float], number: float, total: Sequence[float] | None) -> int | None:
        """The place of the token at `number` in [0, 1) of what is left over; None: what all tokens hold is not known closely enough, or
        top_p leaves over more than these.

        values  in the order of the tokens: logits less the largest, by the temperature
        total   the sum of exp(value) over all tokens at least and at most, where the first rule looks at them; None: these are all
        """
        shares = list(map(math.exp, values))  # 0 of those that are left out
        if self.top_k is not None and self.top_k < len(values):
            last = sorted(values)[-self.top_k]  # by their logits: shares of a high temperature are all 1
            shares = [share if value >= last else 0.0 for share, value in zip(shares, values, strict=True)]
        if self.top_p is not None:
            order = sorted(range(len(values)), key=values.__getitem__, reverse=True)  # equal ones in the order of their ids
            heights = list(accumulate(map(shares.__getitem__, order)))
            places = {bisect_left(heights, self.top_p * each) for each in (heights[-1:] if total is None else total[:2])}
            if len(places) > 1 or (total is not None and len(order) in places):
                return None
            for place in order[places.pop() + 1 :]:
                shares[place] = 0.0
            total = None
        if self.min_p is not None:
            shares = [share if share >= self.min_p else 0.0 for share in shares]
        if self.epsilon is not None:
            sums = (sum(shares),) * 2 if total is None else total
            least, most = (min(self.epsilon * each, 1.0) for each in sums[:2])
            if any(least <= share < most for share in shares):
                return None
            shares = [share if share >= most else 0.0 for share in shares]
        if self.after != 1:
            shares = [math.exp(value / self.after) if share else 0.0 for share, value in zip(shares, values, strict=True)]
        heights = list(accumulate(shares))
        return min(bisect_right(heights, number * heights[-1]), bisect_left(heights, heights[-1]))
