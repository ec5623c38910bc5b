"""Tokens pooled and merged."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from modelgraft.plugin import InputError
from modelgraft_plugins.projectors.grids import is_grid

if TYPE_CHECKING:
    from modelgraft_plugins.projectors import pooling


def side_of(component: str, tokens: int, factor: int = 1) -> int:
    """The side of the square grid that so many tokens are. Raises InputError where they are none that `factor` divides."""
    if not is_grid(tokens, factor):
        wanted = "a square grid" + (f" whose side is a multiple of {factor}" if factor > 1 else "")
        raise InputError(f"{component} got {tokens} tokens, wanted {wanted}; a class token must be left out (select: patches)")
    return math.isqrt(tokens)


def adaptive_means(given: int, wanted: int, like: Tensor) -> Tensor:
    """Which part each place of a row of `given` has in the mean that makes each of `wanted`: [wanted given], rows sum to 1.

    Place i of the result is the mean of the places from floor(i·given/wanted) to before ceil((i+1)·given/wanted), as in torch's
    adaptive average pooling, which no exporter has for sizes that do not divide each other.
    """
    rows = [[float(i * given // wanted <= place < -(-(i + 1) * given // wanted)) for place in range(given)] for i in range(wanted)]
    means = torch.tensor(rows, dtype=like.dtype, device=like.device)
    return means / means.sum(1, keepdim=True)


def pooled_grid(grid: Tensor, side: int) -> Tensor:
    """[batch rows columns width] to [batch side side width]: each the mean of its part of the grid."""
    rows, columns = (adaptive_means(grid.shape[axis], side, grid) for axis in (1, 2))
    return torch.einsum("ir,jc,brcw->bijw", rows, columns, grid)


class Pool(nn.Module):
    """float[batch patches width] to float[batch tokens width]."""

    def __init__(self, config: pooling.Pool) -> None:
        super().__init__()
        self.factor, self.tokens = config.factor, config.tokens

    def forward(self, x: Tensor) -> Tensor:
        """Take the means."""
        batch, patches, width = x.shape
        if self.tokens is not None:
            side = side_of("projector/pool", patches)
            return pooled_grid(x.view(batch, side, side, width), math.isqrt(self.tokens)).flatten(1, 2)
        factor = self.factor
        side = side_of("projector/pool", patches, factor)
        return x.view(batch, side // factor, factor, side // factor, factor, width).mean((2, 4)).flatten(1, 2)


class Merge(nn.Module):
    """float[batch patches width] to float[batch tokens width], by bipartite soft matching (arXiv 2210.09461, section 3)."""

    def __init__(self, config: pooling.Merge) -> None:
        super().__init__()
        assert config.patches is not None
        self.tokens, self.patches = config.tokens, config.patches

    def forward(self, x: Tensor) -> Tensor:
        """Merge in rounds; a round halves the tokens at most."""
        sizes = torch.ones_like(x[..., :1])  # [batch tokens 1] how many patches each stands for
        places = torch.arange(self.patches, device=x.device).expand(x.shape[0], -1)  # [batch tokens]
        left = self.patches
        while left > self.tokens:
            removed = min(left - self.tokens, left // 2)
            x, sizes, places = _merged(x, sizes, places, removed)
            left -= removed
            order = places.argsort(dim=-1)
            x, sizes, places = _taken(x, order), _taken(sizes, order), places.gather(-1, order)
        return x


def _merged(x: Tensor, sizes: Tensor, places: Tensor, removed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Merge the `removed` pairs that are most alike: tokens at even places go into their nearest at odd ones."""
    unit = x / x.norm(dim=-1, keepdim=True)
    near, partner = (unit[:, ::2] @ unit[:, 1::2].mT).max(dim=-1)  # [batch even]
    order = near.argsort(dim=-1, descending=True)
    going, staying = order[:, :removed], order[:, removed:]
    into = partner.gather(-1, going)[..., None]  # [batch removed 1]
    even, odd = (x * sizes)[:, ::2], (x * sizes)[:, 1::2]
    sums = odd.scatter_add(1, into.expand(-1, -1, x.shape[-1]), _taken(even, going))
    counts = sizes[:, 1::2].scatter_add(1, into, _taken(sizes[:, ::2], going))
    kept = torch.cat([_taken(x[:, ::2], staying), sums / counts], dim=1)
    kept_sizes = torch.cat([_taken(sizes[:, ::2], staying), counts], dim=1)
    return kept, kept_sizes, torch.cat([places[:, ::2].gather(-1, staying), places[:, 1::2]], dim=1)


def _taken(x: Tensor, places: Tensor) -> Tensor:
    """Vectors at places: [batch tokens width], [batch n] to [batch n width]."""
    return x.gather(1, places[..., None].expand(-1, -1, x.shape[-1]))
