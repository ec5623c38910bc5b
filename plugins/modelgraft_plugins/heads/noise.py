"""The work of embedding/noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from modelgraft.plugin import LoadContext

if TYPE_CHECKING:
    from modelgraft.plugin import NodeRuntime
    from modelgraft_plugins.heads import Noise as Config


def load(config: Config, _context: LoadContext) -> Noise:
    """Make the function from vectors to vectors with noise."""
    return Noise(config)


class Noise:
    """Adds what the seed of the run draws."""

    runtime: NodeRuntime

    def __init__(self, config: Config) -> None:
        self.config = config

    def bind(self, runtime: NodeRuntime) -> None:
        """Take what tells the seed."""
        self.runtime = runtime

    def __call__(self, x: Tensor) -> Tensor:
        """float[batch width] -> the same of the length 1, with noise: drawn on the host, so that devices give the same."""
        draw = torch.Generator().manual_seed(self.runtime.node_seed())
        drawn = torch.randn(x.shape, generator=draw).to(x)
        return functional.normalize(x, dim=-1) + self.config.std * drawn
