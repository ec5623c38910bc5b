"""The work of the heads that compute."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from modelgraft.plugin import Weights
    from modelgraft_plugins.heads import Cosine as CosineConfig
    from modelgraft_plugins.heads import Dot as DotConfig
    from modelgraft_plugins.heads import Ensemble as EnsembleConfig
    from modelgraft_plugins.heads import Mean as MeanConfig
    from modelgraft_plugins.heads import Normalize as NormalizeConfig
    from modelgraft_plugins.heads import Pair as PairConfig

START_SCALE = math.log(1 / 0.07)  # the temperature that CLIP's training starts from


class Normalize(nn.Module):
    """float[batch ... width] to the same with every vector of length 1."""

    def __init__(self, _config: NormalizeConfig) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """Divide every vector by its length."""
        return unit(x)


class Ensemble(nn.Module):
    """x float[batch texts width], shares float[batch groups texts] to float[batch groups width], each of length 1."""

    def __init__(self, _config: EnsembleConfig) -> None:
        super().__init__()

    def forward(self, x: Tensor, shares: Tensor) -> Tensor:
        """Mean of unit vectors; a group without a text gives zeros."""
        return functional.normalize(shares.to(x.dtype) @ functional.normalize(x, dim=-1), dim=-1)


class Mean(nn.Module):
    """x float[batch ... tokens width], mask bool[batch ... tokens] to float[batch ... width]."""

    def __init__(self, _config: MeanConfig) -> None:
        super().__init__()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Average the vectors that are there; a sequence without any gives zeros."""
        if mask is None:
            return x.mean(-2)
        counted = mask.unsqueeze(-1).to(x.dtype)
        return (x * counted).sum(-2) / counted.sum(-2).clamp(min=1)


class Cosine(nn.Module):
    """x float[batch width], candidates float[batch candidates width] to logits float[batch candidates]."""

    def __init__(self, config: CosineConfig) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.tensor([START_SCALE])) if config.scale else None
        self.logit_bias = nn.Parameter(torch.zeros(1)) if config.bias else None

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Take the numbers alone from the root of a checkpoint, in either of the shapes [] and [1]."""
        return {name: weights.tensor(name).reshape(1) for name, _ in self.named_parameters()}

    def forward(self, x: Tensor, candidates: Tensor) -> Tensor:
        """Compare each record's vector with its own candidates."""
        logits = (unit(candidates) @ unit(x).unsqueeze(-1)).squeeze(-1)
        if self.logit_scale is not None:
            logits = logits * self.logit_scale.exp()
        return logits if self.logit_bias is None else logits + self.logit_bias


class Pair(nn.Module):
    """x, y float[batch width] to their cosine, float[batch]; 0 where one of them is 0."""

    def __init__(self, _config: PairConfig) -> None:
        super().__init__()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Compare each with its own."""
        return (unit(x) * unit(y)).sum(-1)


class Dot(nn.Module):
    """x float[batch width], candidates float[batch candidates width] to logits float[batch candidates]."""

    def __init__(self, _config: DotConfig) -> None:
        super().__init__()

    def forward(self, x: Tensor, candidates: Tensor) -> Tensor:
        """Compare each record's vector with its own candidates."""
        return (candidates @ x.unsqueeze(-1)).squeeze(-1)


def unit(vectors: Tensor) -> Tensor:
    """Divide every vector by its length."""
    lengths: Tensor = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / lengths
