"""LLaMA-Adapter V2's visual prompt, whole: learned queries beside what CLIP sees, in blocks of a vision transformer (arXiv 2304.15010).

Source: `LLaMA_adapter.forward_visual` of the published code, and `Block` of timm, whose names of tensors these are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

if TYPE_CHECKING:
    from modelgraft_plugins.zoo import VisualPrompt as VisualPromptConfig


class Attention(nn.Module):
    """Every vector looks at every vector."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """float[batch tokens width] -> the same."""
        query, key, value = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # [batch heads tokens d]
        found: Tensor = self.proj(scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))
        return found


class FeedForward(nn.Module):
    """Two linear layers."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """float[batch tokens width] -> the same."""
        found: Tensor = self.fc2(gelu(self.fc1(tokens)))
        return found


class Block(nn.Module):
    """A block whose norms stand before its halves."""

    def __init__(self, width: int, heads: int, inner: int, eps: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=eps), nn.LayerNorm(width, eps=eps)
        self.attn, self.mlp = Attention(width, heads), FeedForward(width, inner)

    def forward(self, tokens: Tensor) -> Tensor:
        """float[batch tokens width] -> the same."""
        tokens = tokens + self.attn(self.norm1(tokens))
        found: Tensor = tokens + self.mlp(self.norm2(tokens))
        return found


class VisualPrompt(nn.Module):
    """Learned queries read a picture.

    x        float[batch tokens in_features]
    returns  float[batch queries language_size]
    """

    def __init__(self, config: VisualPromptConfig) -> None:
        super().__init__()
        assert config.in_features is not None
        assert config.language_size is not None
        width = config.width
        self.clip_proj, self.clip_proj_norm = nn.Linear(config.in_features, width), nn.LayerNorm(width)
        self.visual_query = nn.Embedding(config.queries, width)
        blocks = (Block(width, config.heads, config.inner_size, config.block_eps) for _ in range(config.depth))
        self.visual_blocks = nn.ModuleList(blocks)
        self.visual_proj, self.visual_proj_norm = nn.Linear(width, config.language_size), nn.LayerNorm(config.language_size)

    def forward(self, x: Tensor) -> Tensor:
        """Let the queries read; what becomes of the others is left out."""
        seen = self.clip_proj_norm(self.clip_proj(x))
        queries = self.visual_query.weight
        tokens = torch.cat([queries.expand(x.shape[0], -1, -1), seen], 1)
        for block in self.visual_blocks:
            tokens = block(tokens)
        found: Tensor = self.visual_proj_norm(self.visual_proj(tokens[:, : len(queries)]))
        return found
