"""The work of projector/join."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from modelgraft_plugins.projectors.pooling_modules import side_of

if TYPE_CHECKING:
    from modelgraft_plugins.projectors import joining


class Join(nn.Module):
    """float[batch patches width] of each encoder to one of all."""

    def __init__(self, config: joining.Join) -> None:
        super().__init__()
        self.is_behind, self.tokens = config.along == "tokens", config.tokens

    def forward(self, *given: Tensor) -> Tensor:
        """Join them, in a type that holds all."""
        if self.is_behind:
            return torch.cat(given, dim=1)
        return torch.cat([self._brought(x) for x in given], dim=-1)

    def _brought(self, x: Tensor) -> Tensor:
        """As many tokens as are wanted, by bilinear interpolation of the grid; those that are as many stay as they are."""
        if self.tokens is None or x.shape[1] == self.tokens:
            return x
        side, wanted = side_of("projector/join", x.shape[1]), math.isqrt(self.tokens)
        grid = x.view(x.shape[0], side, side, x.shape[2]).permute(0, 3, 1, 2)
        grid = nn.functional.interpolate(grid, size=(wanted, wanted), mode="bilinear", align_corners=False)
        return grid.permute(0, 2, 3, 1).flatten(1, 2)
