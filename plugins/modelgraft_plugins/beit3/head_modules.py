"""The work of the heads, in the names of the published weights. Norms have torch's eps of 1e-5, GELU is by erf."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from modelgraft_plugins.beit3.sizes import PREFIX

if TYPE_CHECKING:
    from modelgraft.plugin import Weights
    from modelgraft_plugins.beit3.heads import Head as HeadConfig


class Head(nn.Module):
    """What the heads have in common: their tensors are all that is not of the trunk."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        assert config.hidden_size is not None
        self.width, self.classes = config.hidden_size, config.classes

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Leave the trunk in the file."""
        return {key: weights.tensor(key) for key in weights.keys() if not key.startswith(PREFIX)}  # noqa: SIM118 not a mapping


class Answer(Head):
    """pooled float[batch width] to logits float[batch classes]."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        width = self.width
        self.pooler = nn.ModuleDict({"norm": nn.LayerNorm(width), "dense": nn.Linear(width, width)})
        self.head = nn.Sequential(nn.Linear(width, 2 * width), nn.LayerNorm(2 * width), nn.GELU(), nn.Linear(2 * width, self.classes))

    def forward(self, pooled: Tensor) -> Tensor:
        """Norm, layer and tanh, then layer, norm, GELU and layer."""
        return self.head(self.pooler["dense"](self.pooler["norm"](pooled)).tanh())  # type: ignore[no-any-return]


class Reason(Head):
    """Four vectors float[batch width] to logits float[batch classes]."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        width = self.width
        layers = {"norm1": nn.LayerNorm(4 * width), "dense1": nn.Linear(4 * width, 2 * width)}
        self.head = nn.ModuleDict({**layers, "norm2": nn.LayerNorm(2 * width), "dense2": nn.Linear(2 * width, self.classes)})

    def forward(self, first: Tensor, first_text: Tensor, second: Tensor, second_text: Tensor) -> Tensor:
        """Norm, layer, norm, GELU, layer, over all four."""
        whole = torch.cat([first, first_text, second, second_text], dim=-1)
        inner = self.head["norm2"](self.head["dense1"](self.head["norm1"](whole)))
        return self.head["dense2"](functional.gelu(inner))  # type: ignore[no-any-return]


class Classify(Head):
    """patches float[batch patches width] to logits float[batch classes]."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        self.fc_norm = nn.LayerNorm(self.width)
        self.head = nn.Linear(self.width, self.classes)

    def forward(self, patches: Tensor) -> Tensor:
        """Mean, norm, layer."""
        return self.head(self.fc_norm(patches.mean(1)))  # type: ignore[no-any-return]
