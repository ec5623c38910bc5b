"""Which records a round runs: the same ones for every cell, walking on from round to round until all were used, and then again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Walk:
    """The way of the rounds through the records.

    records  by number: those of every cell that is compared
    stride   how far a round goes: the smallest batch, so that every cell meets every record
    apart    by cell that fails in more records than it answers: its own way, on which it is compared with nobody
    """

    records: Sequence[int]
    stride: int
    apart: Mapping[str, Sequence[int]]

    def at(self, cell: str, number: int, batch: int) -> list[int]:
        """The records of a cell in the round of a number; rounds begin with 0, and those before it warm up."""
        own = self.apart.get(cell, self.records)
        return [own[(number * self.stride + place) % len(own)] for place in range(batch)]


def walk_of(count: int, failed: Mapping[str, Set[int]], batches: Mapping[str, int]) -> Walk:
    """The walk through records that succeed in every cell.

    count    of all records;  failed  by cell, those that failed in it;  batches  by cell, how many run together

    Cells in which most fail walk apart, so that they do not take the records from the others: the worst first, for as long as
    fewer than half of the records are left. The first cell, to which the others are compared, is the last to go.
    """
    order = sorted(failed, key=lambda cell: len(failed[cell]), reverse=True)  # stable: among equals the first cell comes first
    baseline, apart = next(iter(failed), ""), dict[str, list[int]]()
    for cell in [*(cell for cell in order if cell != baseline), baseline]:
        if _left(count, failed, apart) * 2 >= count:
            break
        if cell and failed[cell]:
            apart[cell] = [record for record in range(count) if record not in failed[cell]]
    together = set[int]().union(*(failed[cell] for cell in failed if cell not in apart))
    records = [record for record in range(count) if record not in together]
    return Walk(records, min((batches[cell] for cell in failed if cell not in apart), default=1), apart)


def _left(count: int, failed: Mapping[str, Set[int]], apart: Mapping[str, object]) -> int:
    return count - len(set[int]().union(*(failed[cell] for cell in failed if cell not in apart)))
