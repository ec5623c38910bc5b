"""Which cells of a table of parts run: enough to see each part at least once, or all with MODELGRAFT_WHOLE=1."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from typing import Any

WHOLE = os.environ.get("MODELGRAFT_WHOLE", "") not in ("", "0")


def covering(*sides: Sequence[Any], rounds: int, seed: int) -> list[tuple[Any, ...]]:
    """Cells of a table, one entry of each side: in every round as many as the longest side has entries, each entry of each side in one
    or more of them. Which meet is drawn by the seed; a cell may come again in a later round, and is given once."""
    chance, longest, found = random.Random(seed), max(map(len, sides)), list[tuple[Any, ...]]()
    for _ in range(rounds):
        columns = []
        for side in sides:
            again = [entry for _ in range(-(-longest // len(side))) for entry in chance.sample(side, len(side))]
            columns.append(again[:longest])
        found += zip(*columns, strict=True)
    return list(dict.fromkeys(found))
