"""The Perceiver Resampler of Flamingo, in the parameter names of OpenFlamingo.

Source: arXiv 2204.14198, section 2.1 and appendix A.1.1 (there with squared ReLU, in OpenFlamingo with GELU).
Axes: `batch` records, `media` of each, `frames` of each, `tokens` of each frame; `latents` stand for all of a medium.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.activations import ACT2FN

ACTIVATIONS = {"gelu": "gelu", "squared_relu": "relu2"}  # our word -> that of transformers


def feed_forward(width: int, multiple: int, activation: str) -> nn.Sequential:
    """Norm, widen, activate ("gelu" or "squared_relu"), narrow; no biases."""
    inner = ACT2FN[ACTIVATIONS[activation]]
    return nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, multiple * width, bias=False), inner, nn.Linear(multiple * width, width, bias=False)
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

    def forward(self, media: Tensor, latents: Tensor, there: Tensor | None = None) -> Tensor:
        """media float[n tokens width], latents float[n latents width] -> float[n latents width].

        there  bool[n 1 latents tokens+latents]: what is read; None: all of it
        """
        media, latents = self.norm_media(media), self.norm_latents(latents)
        keys, values = self.to_kv(torch.cat([media, latents], dim=1)).chunk(2, dim=-1)
        queries = self._split(self.to_q(latents))
        read = functional.scaled_dot_product_attention(queries, self._split(keys), self._split(values), attn_mask=there)
        return self.to_out(read.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def _split(self, states: Tensor) -> Tensor:
        """[n tokens heads*d] -> [n heads tokens d]."""
        return states.reshape(*states.shape[:2], self.heads, self.head_width).transpose(1, 2)


class PerceiverResampler(nn.Module):
    """Learned latents read each medium several times; what they have become is the result."""

    def __init__(
        self, *, width: int, depth: int, heads: int, head_width: int, latents: int, multiple: int, frames: int | None, media: int | None,
        activation: str = "gelu",
    ) -> None:  # fmt: skip
        """frames, media: how many of them have a learned vector of their own; None: there are no such vectors."""
        super().__init__()
        self.latents = nn.Parameter(torch.randn(latents, width))
        self.frame_embs = nn.Parameter(torch.randn(frames, width)) if frames else None
        self.media_time_embs = nn.Parameter(torch.randn(media, 1, width)) if media else None
        blocks = ((PerceiverAttention(width, heads, head_width), feed_forward(width, multiple, activation)) for _ in range(depth))
        self.layers = nn.ModuleList(nn.ModuleList(block) for block in blocks)
        self.norm = nn.LayerNorm(width)

    def forward(self, media: Tensor, lengths: Tensor | None = None) -> Tensor:
        """media float[batch media frames tokens width] -> float[batch media latents width].

        lengths  int64[batch media]: how many frames each medium has; those behind them fill up, and are not read. None: all
        """
        batch, count, frames, tokens = media.shape[:4]
        if self.frame_embs is not None:
            media = media + times(self.frame_embs, frames, lengths)[..., None, :]
        media = media.flatten(2, 3)  # the frames of a medium are one sequence
        if self.media_time_embs is not None:
            media = media + self.media_time_embs[:count]
        media = media.flatten(0, 1)  # each medium is read by itself
        latents = self.latents.expand(media.shape[0], -1, -1)
        there = None if lengths is None else self._there(lengths.flatten(), frames, tokens)
        attend: nn.Module
        widen: nn.Module
        for attend, widen in self.layers:  # type: ignore[misc]  # a ModuleList does not say what it holds
            latents = latents + attend(media, latents, there)
            latents = latents + widen(latents)
        normed: Tensor = self.norm(latents)
        return normed.reshape(batch, count, *normed.shape[1:])

    def _there(self, lengths: Tensor, frames: int, tokens: int) -> Tensor:
        """Which keys are read: those of frames that are there, and the latents; bool[n 1 latents keys]."""
        seen = torch.arange(frames, device=lengths.device) < lengths[:, None]  # [n frames]
        latents = seen.new_ones(seen.shape[0], self.latents.shape[0])
        keys = torch.cat([seen[..., None].expand(-1, -1, tokens).flatten(1), latents], dim=1)
        return keys[:, None, None].expand(-1, -1, self.latents.shape[0], -1)  # whole, as ONNX wants it


def times(learned: Tensor, frames: int, lengths: Tensor | None) -> Tensor:
    """The vector of each frame: the first ones that were learned, or where a clip has more frames, between all of them.

    learned  float[most width];  lengths  int64[batch media], or None: all media have `frames`
    returns  float[batch media frames width], or float[frames width]
    Frames of a longer clip are spread evenly over the learned times: the first and the last have the first and the last vector.
    Source: arXiv 2204.14198, section 2.1 and appendix A.1.1: linear interpolation at evaluation.
    """
    last = learned.shape[0] - 1
    place = torch.arange(frames, device=learned.device)
    longest = place[-1:] if lengths is None else lengths[..., None] - 1
    place = (place.float() * last / longest.clamp(min=max(last, 1)).float()).clamp(max=last)
    lower = place.floor().long()
    share = (place - lower)[..., None].to(learned.dtype)
    return learned[lower] * (1 - share) + learned[(lower + 1).clamp(max=last)] * share
