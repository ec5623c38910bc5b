"""Long sounds in pieces that are heard by themselves: attention takes memory by the square of the length.

Source: `get_feats` of the units that SpeechGPT reads, and of fairseq's quantisers: pieces of 1,600,000 samples, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from modelgraft.plugin import LoadContext

if TYPE_CHECKING:
    from modelgraft_plugins.units import Join, Pieces


def pieces(config: Pieces, _context: LoadContext) -> Callable[[Tensor, Tensor | None], dict[str, list[Tensor]]]:
    """Make the function from float[batch samples] and where there are some to the pieces of each row."""
    size = round(config.seconds * config.sample_rate_hz)

    def cut(samples: Tensor, mask: Tensor | None) -> dict[str, list[Tensor]]:
        there = torch.ones(samples.shape, dtype=torch.bool) if mask is None else mask
        wide = min(size, samples.shape[1])
        found = [_cut(row, heard, wide, config.least_samples) for row, heard in zip(samples, there, strict=True)]
        return {"samples": [row for row, _ in found], "mask": [heard for _, heard in found]}

    return cut


def _cut(samples: Tensor, there: Tensor, wide: int, least: int) -> tuple[Tensor, Tensor]:
    """float[pieces wide] of a row, and where there are samples: a last piece of which no vector is made is left out."""
    length = int(there.sum())
    whole = length // wide
    count = max(1, whole + (length - whole * wide >= least))
    rows = [pad(row, (0, max(0, count * wide - len(row))))[: count * wide].view(count, wide) for row in (samples, there)]
    return rows[0], rows[1]


def join(_config: Join, _context: LoadContext) -> Callable[[Sequence[Sequence[Tensor]]], Any]:
    """Make the function from the int64[frames] of each piece of each record to int64[batch frames]; -1 behind the end of shorter rows."""

    def joined(units: Sequence[Sequence[Tensor]]) -> Tensor:
        nothing = torch.empty(0, dtype=torch.int64)  # of a record without a sound
        rows = [torch.cat([nothing, *(piece[piece >= 0].cpu() for piece in row)]) for row in units]
        return pad_sequence(rows, batch_first=True, padding_value=-1)

    return joined
