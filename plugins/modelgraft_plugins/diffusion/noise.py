"""Noise by a seed and a number."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from modelgraft.plugin import LoadContext, NodeRuntime

APART = 0x9E3779B97F4A7C15  # 2**64 divided by the golden ratio: seeds of neighbouring numbers lie far apart


def load(config: Any, context: LoadContext) -> Drawing:
    """Give what draws noise of the sizes that the graph decided."""
    return Drawing((config.channels, config.rows, config.columns), node=context.node.name)


class Drawing:
    """Draws noise. The same seed and number give the same noise, whatever stands beside it in a batch."""

    def __init__(self, shape: tuple[int, ...], *, node: str) -> None:
        self.shape, self.runtime = shape, NodeRuntime(node)

    def bind(self, runtime: NodeRuntime) -> None:
        """Take the seed from the run."""
        self.runtime = runtime

    def __call__(self, number: Tensor | None) -> Tensor:
        """int64[batch], or None for the number 0 -> float[batch channels rows columns]."""
        numbers = [0] if number is None else number.tolist()
        if not numbers:
            return torch.empty((0, *self.shape))
        return torch.stack([drawn(self.shape, seed=self.runtime.node_seed() + APART * int(one)) for one in numbers])


def drawn(shape: tuple[int, ...], *, seed: int) -> Tensor:
    """float32 of the shape, from a normal distribution, on the host: the same on every device."""
    generator = torch.Generator().manual_seed(seed & 0x7FFF_FFFF_FFFF_FFFF)
    return torch.randn(shape, generator=generator)
