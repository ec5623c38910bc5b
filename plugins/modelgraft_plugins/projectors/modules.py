"""The work of the projectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from modelgraft.plugin import InputError
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

    def as_graph(self, graph: Any, x: Any) -> Any:
        """See AsGraph."""
        return graph.linear(x, "")


class MLP(nn.Module):
    """Two layers in the names of LLaVA: float[batch ... in_features] to float[batch ... out_features]."""

    def __init__(self, config: projectors.MLP) -> None:
        from transformers.activations import ACT2FN  # not at the top: the other projectors need none of it

        super().__init__()
        assert config.in_features is not None
        assert config.out_features is not None
        self.layer_norm = nn.LayerNorm(config.in_features) if config.norm else nn.Identity()
        self.linear_1 = nn.Linear(config.in_features, config.inner, bias=config.bias)
        self.act = ACT2FN[config.hidden_act]
        self.linear_2 = nn.Linear(config.inner, config.out_features, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the norm, where there is one, and both layers, each behind dropout in training."""
        inner = self.act(self.linear_1(self.dropout(self.layer_norm(x))))
        return self.linear_2(self.dropout(inner))  # type: ignore[no-any-return]


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


class Stack(nn.Module):
    """float[batch tokens width] to float[batch tokens/factor factor*width]: a run's vector holds its tokens in order."""

    def __init__(self, config: projectors.Stack) -> None:
        super().__init__()
        self.factor = config.factor

    def from_checkpoint(self, _weights: Weights) -> Mapping[str, Tensor]:
        """Nothing: a checkpoint says how many tokens are joined, and holds no tensor for it."""
        return {}

    def forward(self, x: Tensor) -> Tensor:
        """Join the runs."""
        batch, tokens, width = x.shape
        if not torch.compiler.is_exporting() and tokens % self.factor:
            raise InputError(f"projector/stack got {tokens} tokens, which runs of {self.factor} do not divide")
        return x.reshape(batch, tokens // self.factor, self.factor * width)


class NormedPool(nn.Module):
    """float[batch rows*columns in_features] of a square grid to float[batch rows*columns/factor² out_features], in the names of Gemma 3."""

    def __init__(self, config: projectors.NormedPool) -> None:
        super().__init__()
        assert config.in_features is not None
        assert config.out_features is not None
        self.side, self.factor, self.eps = config.side, config.factor, config.eps
        self.mm_input_projection_weight = nn.Parameter(torch.empty(config.in_features, config.out_features))
        self.mm_soft_emb_norm = nn.Module()
        self.mm_soft_emb_norm.weight = nn.Parameter(torch.zeros(config.in_features))
        nn.init.normal_(self.mm_input_projection_weight, std=config.in_features**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Average, norm, map."""
        batch, _, width = x.shape
        side, factor = self.side, self.factor
        groups = x.view(batch, side // factor, factor, side // factor, factor, width)
        means = groups.mean((2, 4)).flatten(1, 2).float()
        normed = means * torch.rsqrt(means.pow(2).mean(-1, keepdim=True) + self.eps)
        normed = (normed * (1 + self.mm_soft_emb_norm.weight.float())).to(x.dtype)  # type: ignore[operator]  # a parameter
        return normed @ self.mm_input_projection_weight
