"""What sees in a Qwen-VL, in reading order: eye, adapter, and what stands behind it, under the names of the published files.

Source: `visual.py` of the published code. Norms have the eps 1e-6, feed-forward layers the exact GELU.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from modelgraft.plugin import InputError
from modelgraft_plugins.qwenvl import TABLE

if TYPE_CHECKING:
    from modelgraft.plugin import Weights
    from modelgraft_plugins import qwenvl

EPS = 1e-6


def placed(table: Tensor, side: int) -> Tensor:
    """A square table of places, float[places width], brought to side x side by bicubic interpolation; one of that size as it is."""
    there = math.isqrt(len(table))
    if there == side:
        return table
    grid = table.float().reshape(1, there, there, -1).permute(0, 3, 1, 2)
    found = functional.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
    return found[0].permute(1, 2, 0).flatten(0, 1).to(table.dtype)


def waves(width: int, side: int) -> Tensor:
    """Places in two dimensions, float[side*side width]: the first half of the numbers says the column, the second the row.

    Within a half the sines come first, then the cosines, of place / 10000^(i/(width/4)). In float32, as the published code has them.
    """
    steps = torch.arange(width // 4, dtype=torch.float32) / (width / 4)
    angles = torch.arange(side, dtype=torch.float32)[:, None] / 10000**steps
    line = torch.cat([angles.sin(), angles.cos()], 1)  # [side width/2]
    columns, rows = line.repeat(side, 1), line.repeat_interleave(side, 0)
    return torch.cat([columns, rows], 1)


def _side(tokens: int, who: str) -> int:
    side = math.isqrt(tokens)
    if side * side != tokens:
        raise InputError(f"{who} got {tokens} vectors, wanted those of a square grid, without a class token (select: patches)")
    return side


def _own(weights: Weights, module: nn.Module) -> Mapping[str, Tensor]:
    """Of all that sees, the tensors of one part, under their own names."""
    return {name: weights.tensor(name) for name in module.state_dict()}


class Attention(nn.Module):
    """Self-attention whose one map gives queries, keys and values of each head together."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj, self.out_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """float[batch tokens width] to the same."""
        mixed = self.in_proj(x).reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)  # [batch heads tokens 3*size]
        read = functional.scaled_dot_product_attention(*mixed.chunk(3, -1))
        return self.out_proj(read.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Norm, attention, norm, feed-forward."""

    def __init__(self, width: int, heads: int, wide: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width, EPS), nn.LayerNorm(width, EPS)
        self.attn = Attention(width, heads)
        parts = (("c_fc", nn.Linear(width, wide)), ("gelu", nn.GELU()), ("c_proj", nn.Linear(wide, width)))
        self.mlp = nn.Sequential(OrderedDict(parts))

    def forward(self, x: Tensor) -> Tensor:
        """float[batch tokens width] to the same."""
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))  # type: ignore[no-any-return]


class Blocks(nn.Module):
    """Blocks one behind the other, nested as in the published files."""

    def __init__(self, config: qwenvl.Eye) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(config.width, config.heads, config.mlp_width) for _ in range(config.layers))

    def forward(self, x: Tensor) -> Tensor:
        """See Block."""
        for block in self.resblocks:
            x = block(x)
        return x


class Eye(nn.Module):
    """pixels float[batch 3 side side] to patches float[batch tokens width]."""

    def __init__(self, config: qwenvl.Eye) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, config.width, config.patch_size, stride=config.patch_size, bias=False)
        self.positional_embedding = nn.Parameter(torch.empty(TABLE**2, config.width))
        nn.init.normal_(self.positional_embedding, std=config.width**-0.5)
        self.ln_pre = nn.LayerNorm(config.width, EPS)
        self.transformer = Blocks(config)

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Take the eye out of all that sees."""
        return _own(weights, self)

    def forward(self, pixels: Tensor) -> Tensor:
        """Patches with their places, a norm, and the blocks. Raises InputError for pictures that are no squares."""
        x = self.conv1(pixels)
        if x.shape[2] != x.shape[3]:
            raise InputError(f"qwenvl/eye got pictures of {pixels.shape[2]} x {pixels.shape[3]} pixels, wanted squares")
        places = placed(self.positional_embedding, x.shape[2])
        x = self.ln_pre(x.flatten(2).transpose(1, 2) + places)
        return self.transformer(x)  # type: ignore[no-any-return]


class Adapter(nn.Module):
    """patches float[batch tokens width] to latents float[batch queries output_dim]."""

    def __init__(self, config: qwenvl.Adapter) -> None:
        super().__init__()
        assert config.width is not None
        assert config.output_dim is not None
        width, out = config.width, config.output_dim
        self.attn_pool = Pool(width, out, heads=config.heads, queries=config.n_queries)

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Take the adapter out of all that sees."""
        return _own(weights, self)

    def forward(self, patches: Tensor) -> Tensor:
        """Look at the patches."""
        return self.attn_pool(patches)  # type: ignore[no-any-return]


class Pool(nn.Module):
    """Learned queries look at vectors once; the places of both are added to what is compared, not to what is read."""

    def __init__(self, width: int, out: int, *, heads: int, queries: int) -> None:
        super().__init__()
        self.heads = heads
        self.pos_embed = nn.Parameter(waves(out, math.isqrt(queries)), requires_grad=False)
        self.query = nn.Parameter(torch.empty(queries, out))
        nn.init.trunc_normal_(self.query, std=0.02)
        self.kv_proj = nn.Linear(width, out, bias=False) if width != out else nn.Identity()
        self.attn = nn.MultiheadAttention(out, heads, batch_first=True)
        self.ln_q, self.ln_kv = nn.LayerNorm(out, EPS), nn.LayerNorm(out, EPS)

    def forward(self, x: Tensor) -> Tensor:
        """float[batch tokens width] to float[batch queries out]. Raises InputError for vectors that are of no square."""
        places = placed(self.pos_embed, _side(x.shape[1], "qwenvl/adapter"))
        values = self.ln_kv(self.kv_proj(x))
        queries = (self.ln_q(self.query) + self.pos_embed).expand(x.shape[0], -1, -1)
        return self._looked(queries, values + places, values)

    def _looked(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attention under the names of torch's own, which gives its weights too and takes longer for it."""
        maps, shifts = self.attn.in_proj_weight.chunk(3), self.attn.in_proj_bias.chunk(3)
        mapped = (functional.linear(*each) for each in zip((queries, keys, values), maps, shifts, strict=True))
        asked, told, given = (part.reshape(*part.shape[:2], self.heads, -1).transpose(1, 2) for part in mapped)
        read = functional.scaled_dot_product_attention(asked, told, given)
        return self.attn.out_proj(read.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Post(nn.Module):
    """float[batch queries output_dim] to the same."""

    def __init__(self, config: qwenvl.Post) -> None:
        super().__init__()
        assert config.output_dim is not None
        self.ln_post = nn.LayerNorm(config.output_dim, EPS)
        self.proj = nn.Parameter(torch.empty(config.output_dim, config.output_dim))
        nn.init.normal_(self.proj, std=config.output_dim**-0.5)

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Take norm and matrix out of all that sees."""
        return _own(weights, self)

    def forward(self, latents: Tensor) -> Tensor:
        """Norm, then the matrix from the right."""
        return self.ln_post(latents) @ self.proj  # type: ignore[no-any-return]
