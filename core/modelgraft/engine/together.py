"""Nodes that take next to no time are timed together: reading the clock takes as long as they do.

What each took follows from the time of its group, divided as when each was timed by itself, which is at first, and again whenever
a run takes much longer than was known: so a node that becomes slow is told by its own time from the next run on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

BRIEF_S = 1e-6  # a node of less is timed with its neighbours; one reading of the clock takes about a tenth of it
MOST_TOGETHER = 128  # nodes: reading the clock is then a small part of what they take


@dataclass(frozen=True, slots=True)
class Groups:
    """Which neighbours are timed together.

    ends     for each group the number of jobs up to its end, the last of all among them
    seconds  what each job took when it was timed by itself
    """

    ends: tuple[int, ...]
    seconds: tuple[float, ...]

    @classmethod
    def single(cls, count: int) -> Groups:
        """Every one of so many jobs by itself."""
        return cls(tuple(range(1, count + 1)), ())

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Groups:
        """Brief neighbours together, the others by themselves."""
        ends: list[int] = []
        start = 0
        for index, (took, after) in enumerate(pairwise((*seconds, BRIEF_S)), start=1):
            if took >= BRIEF_S or after >= BRIEF_S or index - start == MOST_TOGETHER:
                ends.append(index)
                start = index
        return cls(tuple(ends), tuple(seconds))

    def spread(self, stamps: Sequence[float]) -> Sequence[float]:
        """The clock before the first and after each job, from the clock before the first and after each group."""
        if not self.seconds or len(self.ends) == len(self.seconds):
            return stamps
        found = [stamps[0]]
        for (first, last), (start, end) in zip(pairwise((0, *self.ends)), pairwise(stamps), strict=True):
            parts = list(accumulate(self.seconds[first:last]))
            whole = parts[-1] or 1.0
            found += [start + (end - start) * part / whole for part in parts[:-1]]
            found.append(end)
        return found
