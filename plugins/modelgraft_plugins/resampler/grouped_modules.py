"""The resampler of Idefics 2, in the parameter names of transformers. Axes: `batch` records, `tokens` of each, `latents` that come out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.activations import ACT2FN

from modelgraft_plugins.resampler.grouped import WIDENED

if TYPE_CHECKING:
    from modelgraft_plugins.resampler.grouped import Grouped as GroupedConfig


class Attention(nn.Module):
    """Latents attend to vectors and to each other; several queries share a key."""

    def __init__(self, config: GroupedConfig, width: int) -> None:
        super().__init__()
        self.head_dim, self.is_shared = config.head_dim, config.num_heads != config.num_key_value_heads
        self.q_proj = nn.Linear(width, config.num_heads * config.head_dim, bias=False)
        self.k_proj, self.v_proj = (nn.Linear(width, config.num_key_value_heads * config.head_dim, bias=False) for _ in range(2))
        self.o_proj = nn.Linear(config.num_heads * config.head_dim, width, bias=False)

    def forward(self, latents: Tensor, media: Tensor, mask: Tensor | None) -> Tensor:
        """latents float[batch latents width], media float[batch tokens width], mask bool[batch 1 latents tokens+latents] -> as latents."""
        read = torch.cat([media, latents], dim=1)
        queries, keys, values = (self._split(one) for one in (self.q_proj(latents), self.k_proj(read), self.v_proj(read)))
        seen = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, enable_gqa=self.is_shared)
        return self.o_proj(seen.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def _split(self, states: Tensor) -> Tensor:
        """[batch tokens heads*d] -> [batch heads tokens d]."""
        return states.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # type: ignore[no-untyped-call,no-any-return]


class Forward(nn.Module):
    """A gated feed-forward layer."""

    def __init__(self, width: int, act: str) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = (nn.Linear(width, WIDENED * width, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(WIDENED * width, width, bias=False)
        self.act = ACT2FN[act]

    def forward(self, x: Tensor) -> Tensor:
        """float[batch latents width] -> the same."""
        return self.down_proj(self.act(self.gate_proj(x)) * self.up_proj(x))  # type: ignore[no-any-return]


class Layer(nn.Module):
    """Read, then widen and narrow."""

    def __init__(self, config: GroupedConfig, width: int) -> None:
        super().__init__()
        self.input_latents_norm, self.input_context_norm, self.post_attention_layernorm = (
            nn.RMSNorm(width, eps=config.rms_norm_eps) for _ in range(3)
        )
        self.self_attn = Attention(config, width)
        self.mlp = Forward(width, config.hidden_act)

    def forward(self, latents: Tensor, media: Tensor, mask: Tensor | None) -> Tensor:
        """As of the attention."""
        latents = latents + self.self_attn(self.input_latents_norm(latents), self.input_context_norm(media), mask)
        return latents + self.mlp(self.post_attention_layernorm(latents))  # type: ignore[no-any-return]


class Grouped(nn.Module):
    """media float[batch tokens width], there bool[batch tokens] or None for all -> float[batch latents width]."""

    def __init__(self, config: GroupedConfig) -> None:
        super().__init__()
        assert config.hidden_size is not None
        self.latents = nn.Parameter(torch.ones(config.num_latents, config.hidden_size))
        self.layers = nn.ModuleList(Layer(config, config.hidden_size) for _ in range(config.depth))
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, media: Tensor, there: Tensor | None = None) -> Tensor:
        """Resample each record."""
        latents = self.latents.expand(media.shape[0], -1, -1)
        mask: Any = None
        if there is not None:
            count = latents.shape[1]
            mask = torch.cat([there, there.new_ones(media.shape[0], count)], dim=1)[:, None, None].expand(-1, 1, count, -1)
        for layer in self.layers:
            latents = layer(latents, media, mask)
        return self.norm(latents)  # type: ignore[no-any-return]
