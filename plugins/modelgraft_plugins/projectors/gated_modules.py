"""The work of projector/gated, in the parameter names of a LLaMA."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from transformers.activations import ACT2FN

if TYPE_CHECKING:
    from modelgraft_plugins.projectors import gated


class Gated(nn.Module):
    """float[batch tokens in_features] to float[batch tokens out_features]."""

    def __init__(self, config: gated.Gated) -> None:
        super().__init__()
        assert config.in_features is not None
        assert config.out_features is not None
        self.gate_proj, self.up_proj = (nn.Linear(config.in_features, config.inner, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(config.inner, config.out_features, bias=False)
        self.act = ACT2FN[config.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        """Apply the three layers."""
        return self.down_proj(self.act(self.gate_proj(x)) * self.up_proj(x))  # type: ignore[no-any-return]
