"""The work of projector/memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from modelgraft_plugins.projectors import memory


class Memory(nn.Module):
    """float[batch in_features] to float[batch slots out_features].

    keys    float[sentences in_features]  a vector of each sentence; its length does not matter
    places  int64[sentences slots]        which row each of its tokens is
    rows    float[rows out_features]      the embeddings of these tokens
    priors  float[sentences]              what is added to the cosine of each, where the memory holds it
    """

    places: Tensor
    priors: nn.Parameter | None

    def __init__(self, config: memory.Memory) -> None:
        super().__init__()
        assert config.in_features is not None
        assert config.out_features is not None
        self.scale = config.scale
        self.keys = nn.Parameter(torch.randn(config.sentences, config.in_features))
        self.rows = nn.Parameter(torch.randn(config.rows, config.out_features))
        self.register_parameter("priors", nn.Parameter(torch.zeros(config.sentences)) if config.priors else None)
        self.register_buffer("places", torch.zeros(config.sentences, config.slots, dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """Recall."""
        nearness = functional.normalize(x, dim=-1) @ functional.normalize(self.keys, dim=-1).mT  # [batch sentences]
        if self.priors is not None:
            nearness = nearness + self.priors
        shares = (self.scale * nearness).softmax(-1)
        recalled = self.rows[self.places]  # [sentences slots out_features]
        return (shares @ recalled.flatten(1)).reshape(x.shape[0], *recalled.shape[1:])
