"""The work of a projector of several experts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from modelgraft_plugins.projectors import experts


class Experts(nn.Module):
    """float[batch tokens in_features] to float[batch tokens out_features], in the names of CuMo."""

    def __init__(self, config: experts.Experts) -> None:
        super().__init__()
        assert config.in_features is not None
        assert config.out_features is not None
        self.selected = config.selected
        given, width = config.in_features, config.out_features
        self.gate = nn.Linear(given, config.experts, bias=False)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(given, width), nn.GELU(), nn.Linear(width, width)) for _ in range(config.experts)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Add what the selected experts say.

        Every expert reads every token, and shares of those that are not selected are 0: a graph of ONNX then needs no branches,
        and a connector is small beside what it connects.
        """
        shares = self.gate(x).softmax(-1, dtype=torch.float32).to(x.dtype)  # [batch tokens experts]
        best, chosen = shares.topk(self.selected, dim=-1)
        shares = torch.zeros_like(shares).scatter(-1, chosen, best / best.sum(-1, keepdim=True))
        said = torch.stack([expert(x) for expert in self.experts], dim=-2)  # [batch tokens experts width]
        return (shares[..., None] * said).sum(-2)
