"""Tensor parts: the nearest centre of each frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from modelgraft_plugins.units.files import KEY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelgraft.plugin import Weights
    from modelgraft_plugins.units import Kmeans as KmeansConfig


class Kmeans(nn.Module):
    """Centres of clusters, and which of them is nearest.

    features  float[batch frames width]
    mask      bool[batch frames]; None: every frame is there
    returns   int64[batch frames], or int64[batch frames books] where there are several books; -1 where no frame is

    Source: MiniBatchKMeans.predict of scikit-learn. |x - c|² = |x|² - 2 x·c + |c|², of which |x|² is the same for every c.
    """

    def __init__(self, config: KmeansConfig) -> None:
        super().__init__()
        self.books = config.books
        shape = (config.books, config.clusters, config.width // config.books)
        self.centres = nn.Parameter(torch.empty(shape), requires_grad=False)  # fitted, never trained
        nn.init.normal_(self.centres)

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Give the centres with a book before them."""
        centres = weights.state()[KEY]
        return {"centres": centres if centres.dim() == 3 else centres[None]}

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Look for the nearest."""
        batch, frames, _ = features.shape
        parts = features.reshape(batch, frames, self.books, -1).transpose(1, 2)  # [batch books frames width]
        apart = self.centres.square().sum(-1)[:, None] - 2 * parts @ self.centres.mT  # [batch books frames clusters]
        units = apart.argmin(-1).transpose(1, 2)
        if mask is not None:
            units = units.masked_fill(~mask[:, :, None], -1)
        return units.squeeze(-1) if self.books == 1 else units
