"""Which tests a run takes: all (`make whole`), those of `make test`, or those of `make quick`; all where it is said which.

A function has a share of seconds: as many of its cases run as fit, by what `seconds.txt` says. In `make test` each has one at least, and
so has each family, backend and precision. Which: the case with the most words that no other of its function showed, and of those the
first by a hash of the name: the same for everybody, whatever the order, the number of processes, the day.
"""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from support.seconds import SHORT, function_of

TEST, QUICK = 0.2, 0.07  # seconds of a function in `make test`, in `make quick`
PROOF = 45  # shares that one has in `make test` which stands for others: see `Case.whole`


@dataclass(frozen=True)
class Case:
    """A test by its node id: `file::function[words]`.

    slow   left out of `make quick`: a function with cases of both kinds is two
    whole  left to whole runs by `@pytest.mark.whole("file::function", ...)`: what proves the same on something smaller
    """

    name: str
    slow: bool = False
    whole: tuple[str, ...] | None = None

    @cached_property
    def function(self) -> str:
        return function_of(self.name, slow=self.slow)

    @property
    def file(self) -> str:
        return self.name.partition("::")[0]

    @cached_property
    def words(self) -> frozenset[str]:
        """What its values are called."""
        return frozenset(filter(None, re.split(r"[-/ ]", self.name.partition("[")[2].removesuffix("]"))))

    @cached_property
    def place(self) -> tuple[int, str]:
        """Where it stands among others: by chance, and always there."""
        return zlib.crc32(self.name.encode()), self.name


def for_test(cases: Collection[Case], seconds: Mapping[str, float], names: frozenset[str], share: float = TEST) -> set[str]:
    """What `make test` runs: of each function what fits into its share, one at least; then one of each of these names that none showed."""
    proofs = {name for case in cases for name in case.whole or ()}
    cases = [case for case in cases if case.whole is None]
    found = set[Case]()
    for each in tables(cases).values():
        shares = PROOF if each[0].name.partition("[")[0] in proofs else 1
        found.update(spread(each, max(1, int(shares * share / takes(each[0], seconds)))))
    met = frozenset().union(*(case.words for case in found)) if found else frozenset()
    for case in sorted(cases, key=lambda case: (takes(case, seconds), case.place)):
        if (case.words & names) - met:
            found.add(case)
            met |= case.words
    return {case.name for case in found}


def for_quick(cases: Iterable[Case], seconds: Mapping[str, float], share: float = QUICK) -> set[str]:
    """What `make quick` runs: the same with a smaller share, and without functions of which no case fits; one of each file that has a
    test that is not slow."""
    cases = [case for case in cases if case.whole is None and not case.slow]
    found = {case for each in tables(cases).values() for case in spread(each, int(share / takes(each[0], seconds)))}
    shown = {case.file for case in found}
    for case in sorted(cases, key=lambda case: (takes(case, seconds), case.place)):
        if case.file not in shown:
            found.add(case)
            shown.add(case.file)
    return {case.name for case in found}


def takes(case: Case, seconds: Mapping[str, float]) -> float:
    """Seconds of a processor, by what was measured of its function."""
    return max(SHORT, seconds.get(case.function, SHORT))


def tables(cases: Iterable[Case]) -> dict[str, list[Case]]:
    """Function -> its cases."""
    found = defaultdict(list)
    for case in cases:
        found[case.function].append(case)
    return found


def spread(cases: Sequence[Case], count: int) -> list[Case]:
    """So many of them, each with the largest part of words that those before it did not have."""
    if count >= len(cases):
        return list(cases)
    left, found, met = sorted(cases, key=lambda case: case.place), [], set[str]()
    for _ in range(count):
        best = max(left, key=lambda case: len(case.words - met) / max(1, len(case.words)))  # the first of those that are equal
        left.remove(best)
        found.append(best)
        met |= best.words
    return found
