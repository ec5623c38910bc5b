"""The connector of Kosmos, under the names of its published files.

Source: arXiv 2302.14045, 2.2, and `unilm/models/connector.py` of the released code. Checked against transformers in tests/plugins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from modelgraft_plugins import kosmos


class Connector(nn.Module):
    """float[batch tokens in_features] to float[batch queries hidden_size]."""

    def __init__(self, config: kosmos.Connector) -> None:
        super().__init__()
        assert config.in_features is not None
        assert config.hidden_size is not None
        self.dense = nn.Linear(config.in_features, config.hidden_size)
        self.latent_query = nn.Parameter(torch.empty(config.queries, config.hidden_size))
        nn.init.normal_(self.latent_query)
        self.x_attn = Attention(config.hidden_size, config.num_heads)

    def forward(self, x: Tensor) -> Tensor:
        """Read what the eye sees, and the queries behind it."""
        seen = self.dense(functional.normalize(x, dim=-1))
        queries = self.latent_query.expand(x.shape[0], -1, -1)
        latents: Tensor = self.x_attn(queries, torch.cat([seen, queries], 1))
        return latents


class Attention(nn.Module):
    """Attention of some vectors to others, with biases."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.k_proj, self.v_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.q_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """x float[batch queries width], memory float[batch tokens width]."""
        query = self.q_proj(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = (part(memory).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.k_proj, self.v_proj))
        mixed = functional.scaled_dot_product_attention(query, key, value)
        given: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return given
