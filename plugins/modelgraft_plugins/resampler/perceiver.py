"""The Perceiver Resampler of Flamingo, in the parameter names of OpenFlamingo.

Source: arXiv 2204.14198, section 2.1 and appendix A.1.1 (there with squared ReLU, here with GELU as in OpenFlamingo).
Axes: `batch` records, `media` of each, `frames` of each, `tokens` of each frame; `latents` stand for all of a medium.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def feed_forward(width: int, multiple: int) -> nn.Sequential:
    """Norm, widen, GELU, narrow; no biases."""
    return nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, multiple * width, bias=False), nn.GELU(), nn.Linear(multiple * width, width, bias=False)
    )


class PerceiverAttention(nn.Module):
    """Latents attend to a medium and to each other."""

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads, self.head_width = heads, head_width
        self.norm_media, self.norm_latents = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_q = nn.Linear(width, heads * head_width, bias=False)
        self.to_kv = nn.Linear(width, 2 * heads * head_width, bias=False)
        self.to_out = nn.Linear(heads * head_width, width, bias=False)

    def forward(self, media: Tensor, latents: Tensor) -> Tensor:
        """media float[n tokens width], latents float[n latents width] -> float[n latents width]."""
        media, latents = self.norm_media(media), self.norm_latents(latents)
        keys, values = self.to_kv(torch.cat([media, latents], dim=1)).chunk(2, dim=-1)
        read = functional.scaled_dot_product_attention(self._split(self.to_q(latents)), self._split(keys), self._split(values))
        return self.to_out(read.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def _split(self, states: Tensor) -> Tensor:
        """[n tokens heads*d] -> [n heads tokens d]."""
        return states.reshape(*states.shape[:2], self.heads, self.head_width).transpose(1, 2)


class PerceiverResampler(nn.Module):
    """Learned latents read each medium several times; what they have become is the result."""

    def __init__(
        self, *, width: int, depth: int, heads: int, head_width: int, latents: int, multiple: int, frames: int | None, media: int | None
    ) -> None:
        """frames, media: how many of them have a learned vector of their own; None: there are no such vectors."""
        super().__init__()
        self.latents = nn.Parameter(torch.randn(latents, width))
        self.frame_embs = nn.Parameter(torch.randn(frames, width)) if frames else None
        self.media_time_embs = nn.Parameter(torch.randn(media, 1, width)) if media else None
        blocks = ((PerceiverAttention(width, heads, head_width), feed_forward(width, multiple)) for _ in range(depth))
        self.layers = nn.ModuleList(nn.ModuleList(block) for block in blocks)
        self.norm = nn.LayerNorm(width)

    def forward(self, media: Tensor) -> Tensor:
        """media float[batch media frames tokens width] -> float[batch media latents width]."""
        batch, count, frames = media.shape[:3]
        if self.frame_embs is not None:
            media = media + self.frame_embs[:frames, None]
        media = media.flatten(2, 3)  # the frames of a medium are one sequence
        if self.media_time_embs is not None:
            media = media + self.media_time_embs[:count]
        media = media.flatten(0, 1)  # each medium is read by itself
        latents = self.latents.expand(media.shape[0], -1, -1)
        attend: nn.Module
        widen: nn.Module
        for attend, widen in self.layers:  # type: ignore[misc]  # a ModuleList does not say what it holds
            latents = latents + attend(media, latents)
            latents = latents + widen(latents)
        normed: Tensor = self.norm(latents)
        return normed.reshape(batch, count, *normed.shape[1:])
