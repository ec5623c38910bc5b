"""Runs: equal units in a row, written once with the number of frames that they last."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

if TYPE_CHECKING:
    from collections.abc import Callable

    from modelgraft.plugin import LoadContext
    from modelgraft_plugins.units import Dedup


def load(_config: Dedup, _context: LoadContext) -> Callable[[Tensor], dict[str, Tensor]]:
    """Make the function from int64[batch frames] to units and durations, int64[batch runs] each."""
    return runs_of


def runs_of(units: Tensor) -> dict[str, Tensor]:
    """Join equal neighbours. Frames with a unit below 0 are left out before."""
    rows = [torch.unique_consecutive(row[row >= 0], return_counts=True) for row in units]
    found = [pad_sequence([row[part] for row in rows], batch_first=True, padding_value=filling) for part, filling in ((0, -1), (1, 0))]
    return {"units": found[0], "durations": found[1]}
