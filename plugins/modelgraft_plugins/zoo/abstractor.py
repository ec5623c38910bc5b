"""mPLUG-Owl's abstractor, whole: queries that read pictures, and a learned vector behind them (arXiv 2304.14178).

Source: `MplugOwlVisualAbstractorModel` of the published code, whose names of tensors these are. Its residuals start from the normed
queries, and queries stand among what is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu

if TYPE_CHECKING:
    from modelgraft_plugins.zoo import Abstractor as AbstractorConfig

NORM_EPS = 1e-5  # of all norms but the one within the feed-forward layers


class FeedForward(nn.Module):
    """Two gates side by side, and a norm between them and the way back."""

    def __init__(self, width: int, inner: int, eps: float) -> None:
        super().__init__()
        self.w1, self.w2, self.w3 = nn.Linear(width, inner), nn.Linear(inner, width), nn.Linear(width, inner)
        self.ffn_ln = nn.LayerNorm(inner, eps=eps)

    def forward(self, tokens: Tensor) -> Tensor:
        """float[batch tokens width] -> the same."""
        found: Tensor = self.w2(self.ffn_ln(silu(self.w1(tokens)) * self.w3(tokens)))
        return found


class Reading(nn.Module):
    """Queries look at what is read."""

    def __init__(self, width: int, memory: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = nn.Linear(width, width), nn.Linear(memory, width), nn.Linear(memory, width)

    def forward(self, queries: Tensor, memory: Tensor) -> Tensor:
        """queries float[batch queries width], memory float[batch tokens memory] -> float[batch queries width]."""
        query, key, value = (
            x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (self.query(queries), self.key(memory), self.value(memory))
        )
        return scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)  # [batch queries width]


class After(nn.Module):
    """What follows the reading: its way back and the feed-forward layers, both beside what came in."""

    def __init__(self, width: int, inner: int, eps: float) -> None:
        super().__init__()
        self.out_proj, self.norm2, self.mlp = nn.Linear(width, width), nn.LayerNorm(width, eps=NORM_EPS), FeedForward(width, inner, eps)

    def forward(self, read: Tensor, queries: Tensor) -> Tensor:
        """Both float[batch queries width] -> the same."""
        queries = queries + self.out_proj(read)
        found: Tensor = queries + self.mlp(self.norm2(queries))
        return found


class CrossAttention(nn.Module):
    """A layer: the normed queries read themselves and the normed memory."""

    def __init__(self, config: AbstractorConfig) -> None:
        super().__init__()
        assert config.hidden_size is not None
        width = config.hidden_size
        self.attention = Reading(width, width, config.num_attention_heads)
        self.output = After(width, config.intermediate_size, config.layer_norm_eps)
        self.norm1, self.normk = nn.LayerNorm(width, eps=NORM_EPS), nn.LayerNorm(width, eps=NORM_EPS)

    def forward(self, queries: Tensor, memory: Tensor) -> Tensor:
        """queries float[batch queries width], memory float[batch tokens width] -> float[batch queries width]."""
        queries = self.norm1(queries)
        found: Tensor = self.output(self.attention(queries, torch.cat([queries, self.normk(memory)], 1)), queries)
        return found


class Layer(nn.Module):
    """A layer under its published name."""

    def __init__(self, config: AbstractorConfig) -> None:
        super().__init__()
        self.crossattention = CrossAttention(config)

    def forward(self, queries: Tensor, memory: Tensor) -> Tensor:
        """See CrossAttention."""
        found: Tensor = self.crossattention(queries, memory)
        return found


class Encoder(nn.Module):
    """Layer by layer, under its published name."""

    def __init__(self, config: AbstractorConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))

    def forward(self, queries: Tensor, memory: Tensor) -> Tensor:
        """See CrossAttention."""
        for layer in self.layers:
            queries = layer(queries, memory)
        return queries


class Abstractor(nn.Module):
    """Queries read a picture and become vectors of the language model.

    queries  float[batch queries hidden_size];  memory  float[batch memory_tokens hidden_size]
    returns  float[batch queries+1 language_size]: behind the last query stands the learned vector
    """

    def __init__(self, config: AbstractorConfig) -> None:
        super().__init__()
        assert config.hidden_size is not None
        assert config.language_size is not None
        self.encoder = Encoder(config)
        self.visual_fc = nn.Linear(config.hidden_size, config.language_size)
        self.vit_eos = nn.Parameter(torch.empty(1, 1, config.language_size))
        nn.init.trunc_normal_(self.vit_eos, std=0.02)

    def forward(self, queries: Tensor, memory: Tensor) -> Tensor:
        """Read the memory layer by layer."""
        read = self.encoder(queries, memory)
        return torch.cat([self.visual_fc(read), self.vit_eos.expand(queries.shape[0], -1, -1)], 1)
