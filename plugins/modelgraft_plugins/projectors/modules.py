"""The work of the projectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from transformers.activations import ACT2FN

from modelgraft_plugins.projectors.pooling_modules import side_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelgraft.plugin import Weights
    from modelgraft_plugins import projectors


class Linear(nn.Linear):
    """float[batch ... in_features] to float[batch ... out_features]."""

    def __init__(self, config: projectors.Linear) -> None:
        assert config.in_features is not None
        assert config.out_features is not None
        super().__init__(config.in_features, config.out_features, bias=config.bias)


class MLP(nn.Module):
    """Two layers in the names of LLaVA: float[batch ... in_features] to float[batch ... out_features]."""

    def __init__(self, config: projectors.MLP) -> None:
        super().__init__()
        assert config.in_features is not None
        assert config.out_features is not None
        self.layer_norm = nn.LayerNorm(config.in_features) if config.norm else nn.Identity()
        self.linear_1 = nn.Linear(config.in_features, config.inner, bias=config.bias)
        self.act = ACT2FN[config.hidden_act]
        self.linear_2 = nn.Linear(config.inner, config.out_features, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the norm, where there is one, and both layers."""
        return self.linear_2(self.act(self.linear_1(self.layer_norm(x))))  # type: ignore[no-any-return]


class PixelShuffle(nn.Module):
    """float[batch rows*columns width] of a square grid to float[batch rows*columns/factor² factor²*width].

    A group's vector holds its patches row by row.
    """

    def __init__(self, config: projectors.PixelShuffle) -> None:
        super().__init__()
        self.factor = config.factor

    def from_checkpoint(self, _weights: Weights) -> Mapping[str, Tensor]:
        """Take nothing: of a checkpoint its config alone is read."""
        return {}

    def forward(self, x: Tensor) -> Tensor:
        """Join the groups."""
        batch, tokens, width = x.shape
        factor = self.factor
        side = side_of("projector/pixel_shuffle", tokens, factor)
        groups = x.view(batch, side // factor, factor, side // factor, factor, width).transpose(2, 3)
        return groups.reshape(batch, tokens // factor**2, factor**2 * width)
