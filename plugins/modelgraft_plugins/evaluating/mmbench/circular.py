"""CircularEval: a question counts when it is answered right under every rotation of its options.

A row of the data is a question with its options in one order: `index` modulo 1,000,000 is the question, the millions are the rotation.
Groups may be smaller than the number of options: what is there counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from modelgraft_plugins.evaluating.mmbench.extraction import UNREAD

ROTATION = 1_000_000  # between the indices of two rotations of a question


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A row with what was read of the answer to it.

    letter   NONE_OF_THEM and UNREAD are no option;  right  "" where the data do not say it
    options  how many there are
    """

    index: int
    letter: str
    right: str
    options: int = 0

    @property
    def question(self) -> int:
        """The number of the question."""
        return self.index % ROTATION

    @property
    def is_first(self) -> bool:
        """Whether the options stand in their first order."""
        return self.index < ROTATION

    @property
    def is_right(self) -> bool:
        """Whether the option that was named is the right one."""
        return self.letter == self.right != ""


def groups(rows: Iterable[Asked]) -> dict[int, list[Asked]]:
    """The rows of each question, in the order of rotations. A question whose first row is missing is none: its copies are left out."""
    found: dict[int, list[Asked]] = {}
    for row in sorted(rows, key=lambda row: row.index):
        found.setdefault(row.question, []).append(row)
    return {question: group for question, group in found.items() if group[0].is_first}


def by_rules(group: Sequence[Asked]) -> bool | None:
    """What the rules alone decide of a question: False as soon as one letter is wrong; None while an answer is unread and none is wrong."""
    if any(row.letter != UNREAD and not row.is_right for row in group):
        return False
    return True if all(row.is_right for row in group) else None


def hit(group: Sequence[Asked]) -> bool:
    """Whether a question counts: an answer that nobody could read is wrong."""
    return all(row.is_right for row in group)


def is_whole(group: Sequence[Asked]) -> bool:
    """Whether there is a row for each rotation."""
    return len(group) >= group[0].options


def by_chance(whole: Iterable[Sequence[Asked]]) -> float:
    """The mean of hits that letters drawn at random would get."""
    chances = [1.0 / max(group[0].options, 1) ** len(group) for group in whole]
    return sum(chances) / len(chances) if chances else 0.0


def means(rows: Sequence[Mapping[str, object]], hits: Sequence[bool], key: str) -> dict[str, tuple[float, list[int]]]:
    """The mean of hits for each value of a column, with the places of its rows; rows without a value are in none."""
    places: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        if row.get(key):
            places.setdefault(str(row[key]), []).append(place)
    return {name: (sum(hits[one] for one in found) / len(found), found) for name, found in sorted(places.items())}
