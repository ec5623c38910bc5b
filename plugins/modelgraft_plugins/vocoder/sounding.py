"""The work of vocoder/sound: rows of samples as records."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from modelgraft.plugin import Audio, InputError, LoadContext

if TYPE_CHECKING:
    from modelgraft_plugins.vocoder import Sound

NAME = "vocoder/sound"


def load(config: Sound, _context: LoadContext) -> Sounding:
    """Make the function from samples to sounds."""
    return Sounding(config)


class Sounding:
    """Makes sounds of one channel."""

    def __init__(self, config: Sound) -> None:
        assert config.rate_hz is not None  # the check asks for it
        self.rate_hz = config.rate_hz
        self.most = None if config.seconds is None else int(config.seconds * self.rate_hz)

    def __call__(self, samples: Tensor, mask: Tensor | None = None) -> list[Audio]:
        """float[batch samples] -> sounds of their own lengths.

        Raises InputError for one without samples, or with such as are no finite numbers.
        """
        rows = samples.to(torch.float32).cpu()
        chosen = [row if mask is None else row[mask[index].cpu()] for index, row in enumerate(rows)]
        return [self._sound(row[: self.most], index) for index, row in enumerate(chosen)]

    def _sound(self, row: Tensor, index: int) -> Audio:
        if not row.numel():
            raise InputError(f"{NAME}: record {index} has no samples, which make no sound; ask for at least one frame")
        if not bool(torch.isfinite(row).all()):
            raise InputError(f"{NAME}: record {index} holds samples that are no finite numbers; run the vocoder with dtype: float32")
        return Audio(row[None].contiguous().numpy(), self.rate_hz)
