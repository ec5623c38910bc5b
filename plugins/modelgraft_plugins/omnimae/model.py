"""OmniMAE, whole in one file, in reading order: patches, encoder, decoder, pixels that are wanted, loss, and the way back to pixels.

Source: arXiv 2206.08356, and the layout of its published weights. Letters: t frames, p rows and columns of a patch; D width of the
encoder. A still picture is t equal frames, so that one stem serves both media.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from modelgraft_plugins.omnimae.sizes import COLOURS, MEAN, STD

if TYPE_CHECKING:
    from modelgraft.plugin import LoadContext, Weights
    from modelgraft_plugins import omnimae
    from modelgraft_plugins.omnimae.sizes import Grid

EPS = 1e-6  # of every norm, and under the root of the variance of a patch
WAVE = 10_000.0  # of the sinusoids: the longest is so many places times 2 pi
STEM = "patch_embed.proj.1."  # the official name of `patches.`


class Block(nn.Module):
    """Norm, attention, norm, feed-forward: float[batch places width] to the same."""

    def __init__(self, width: int, heads: int, *, qkv_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=EPS), nn.LayerNorm(width, eps=EPS)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width, bias=qkv_bias), "proj": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})

    def forward(self, x: Tensor) -> Tensor:
        """Let every place look at all others."""
        three = self.attn["qkv"](self.norm1(x)).reshape(*x.shape[:2], 3, self.heads, -1)  # [batch places 3 heads d]
        query, key, value = three.permute(2, 0, 3, 1, 4).unbind(0)
        read = functional.scaled_dot_product_attention(query, key, value)
        x = x + self.attn["proj"](read.transpose(1, 2).flatten(2))
        return x + self.mlp["fc2"](functional.gelu(self.mlp["fc1"](self.norm2(x))))  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """A vision transformer without a class token.

    pixels   float[batch 3 height width], or float[batch 3 frames height width]; several clips of each record behind `batch`, as the results
    kept     int64[batch kept]: the places that are seen, of those of all patches in the order of time, rows and columns
    returns  tokens float[batch tokens D] and pooled float[batch D]; with `kept` float[batch kept D] alone, behind the last norm
    """

    def __init__(self, config: omnimae.Encoder) -> None:
        super().__init__()
        assert config.num_heads is not None
        self.config, width = config, config.embed_dim
        self.patches = nn.Conv3d(COLOURS, width, config.patch_size, stride=config.patch_size)
        self.pos_embed: Tensor
        self.register_buffer("pos_embed", sinusoids(config, width))
        self.blocks = nn.ModuleList(Block(width, config.num_heads, qkv_bias=True) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, eps=EPS)

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Take the trunk of an official file without its decoder."""
        inside = {key.removeprefix("trunk."): key for key in weights.keys() if key.startswith("trunk.")}  # noqa: SIM118 not a mapping
        mine = {name: key for name, key in inside.items() if not name.startswith("decoder.") and name != "mask_token"}
        return {name.replace(STEM, "patches."): weights.tensor(key) for name, key in mine.items()}

    def forward(self, pixels: Tensor, kept: Tensor | None = None) -> Tensor | dict[str, Tensor]:
        """Encode all patches, or those that are kept."""
        if self.config.clips:
            found = self._see(pixels.flatten(0, 1), None)
            return {name: tensor.reshape(*pixels.shape[:2], *tensor.shape[1:]) for name, tensor in found.items()}
        found = self._see(pixels, kept)
        return found["tokens"] if kept is not None else found

    def _see(self, pixels: Tensor, kept: Tensor | None) -> dict[str, Tensor]:
        """Each picture or clip by itself."""
        moving = repeated(pixels, self.config)
        x = self.patches(moving).flatten(2).transpose(1, 2)  # [batch tokens D]
        x = x + positions(self.pos_embed, self.config)
        if kept is not None:
            x = x.gather(1, kept[..., None].expand(-1, -1, x.shape[-1]))
        for block in self.blocks:
            x = block(x)
        return {"tokens": self.norm(x)} if kept is not None else {"tokens": x, "pooled": self.norm(x.mean(1))}


class Decoder(nn.Module):
    """What is hidden, from what was seen.

    tokens   float[batch kept D];  kept  int64[batch kept]: their places
    returns  float[batch tokens width]

    Unlike MAE's, positions are added in the width of the encoder, before the way into the decoder's own.
    """

    def __init__(self, config: omnimae.Decoder) -> None:
        super().__init__()
        assert config.decoder_num_heads is not None
        self.config, wide, narrow = config, config.embed_dim, config.decoder_embed_dim
        self.mask_token = nn.Parameter(torch.zeros(1, wide))
        self.pos_embed: Tensor
        self.register_buffer("pos_embed", sinusoids(config, wide))
        self.decoder_embed = nn.Linear(wide, narrow)
        blocks = (Block(narrow, config.decoder_num_heads, qkv_bias=config.decoder_qkv_bias) for _ in range(config.decoder_depth))
        self.decoder_blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(narrow, eps=EPS)

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Take the decoder of an official file, and the vector of what is hidden."""
        mine = [key for key in weights.keys() if key.startswith("trunk.decoder.")]  # noqa: SIM118 not a mapping
        found = {key.removeprefix("trunk.decoder."): weights.tensor(key) for key in mine}
        return {**found, "mask_token": weights.tensor("trunk.mask_token")}

    def forward(self, tokens: Tensor, kept: Tensor) -> Tensor:
        """Put every vector at its place, and decode."""
        config = self.config
        hidden = self.mask_token.to(tokens.dtype).expand(tokens.shape[0], config.tokens, -1)
        x = hidden.scatter(1, kept[..., None].expand(-1, -1, tokens.shape[-1]), tokens)
        x = self.decoder_embed(x + positions(self.pos_embed, config))
        for block in self.decoder_blocks:
            x = block(x)
        return self.norm(x)  # type: ignore[no-any-return]


def targets(config: Grid, _context: LoadContext) -> Callable[[Tensor], dict[str, Tensor]]:
    """Make the function from pixels float[batch 3 (frames) height width] to targets float[batch tokens values], mean and std."""

    def make_even(pixels: Tensor) -> dict[str, Tensor]:
        """Each colour of each patch by itself, with the unbiased variance; mean and std are float[batch tokens 3]."""
        pixels = repeated(pixels, config)
        patches = cut(pixels * colours(STD, pixels) + colours(MEAN, pixels), config)  # [batch tokens t*p*p 3]
        mean = patches.mean(2)
        std = (patches.var(2, unbiased=True) + EPS).sqrt()
        even = (patches - mean[:, :, None]) / std[:, :, None]
        return {"targets": even.flatten(2), "mean": mean, "std": std}

    return make_even


def unpatch(config: Grid, _context: LoadContext) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Make the function from patches float[batch tokens values] to pixels float[batch 3 (frames) height width]."""

    def put_together(patches: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """Undo what `targets` does."""
        values = patches.reshape(*patches.shape[:2], -1, COLOURS) * std[:, :, None] + mean[:, :, None]
        grid = values.reshape(-1, config.slices, config.rows, config.columns, *config.patch_size, COLOURS)
        pixels = grid.permute(0, 7, 1, 4, 2, 5, 3, 6)  # [batch 3 slices t rows p columns p]
        pixels = pixels.flatten(6, 7).flatten(4, 5).flatten(2, 3)
        pixels = (pixels - colours(MEAN, pixels)) / colours(STD, pixels)
        return pixels.mean(2) if config.is_still else pixels

    return put_together


class Loss(nn.Module):
    """patches and targets float[batch tokens values], mask bool[batch (slices) rows columns] to float[batch]."""

    def __init__(self, _config: omnimae.Loss) -> None:
        super().__init__()

    def forward(self, patches: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
        """Average over the hidden patches of each record."""
        hidden = mask.flatten(1).to(patches.dtype)
        each = (patches - targets).square().mean(-1)
        return (each * hidden).sum(1) / hidden.sum(1).clamp(min=1)


def sinusoids(config: Grid, width: int) -> Tensor:
    """The positions of all patches of a clip in a row, float32[1 tokens width]: even numbers are sines, odd ones cosines, of
    place / 10000^(2*floor(j/2)/width), computed in float64."""
    slices, rows, columns = config.trained
    places = torch.arange(slices * rows * columns, dtype=torch.float64)[:, None]
    steps = torch.arange(width, dtype=torch.float64).div(2, rounding_mode="floor")
    angles = places / WAVE ** (2 * steps / width)
    is_even = torch.arange(width) % 2 == 0
    return torch.where(is_even, angles.sin(), angles.cos()).float()[None]


def positions(table: Tensor, config: Grid) -> Tensor:
    """The positions of the patches that come, float[1 tokens width]: the first slice for a still picture; of other sizes resized."""
    slices, rows, columns = config.trained
    grid = table.reshape(slices, rows, columns, -1)[: config.slices]
    if (rows, columns) != (config.rows, config.columns):
        resized = functional.interpolate(grid.permute(0, 3, 1, 2), (config.rows, config.columns), mode="bicubic")
        grid = resized.permute(0, 2, 3, 1)
    return grid.flatten(0, 2)[None]


def repeated(pixels: Tensor, config: Grid) -> Tensor:
    """A still picture as the equal frames of one patch: float[batch 3 frames height width]."""
    return pixels[:, :, None].expand(-1, -1, config.patch_size[0], -1, -1) if config.is_still else pixels


def cut(pixels: Tensor, config: Grid) -> Tensor:
    """float[batch 3 frames height width] to float[batch tokens t*p*p 3], in the order of frames, rows, columns, colours."""
    time, high, wide = config.patch_size
    grid = pixels.reshape(-1, COLOURS, config.slices, time, config.rows, high, config.columns, wide)
    return grid.permute(0, 2, 4, 6, 3, 5, 7, 1).flatten(4, 6).flatten(1, 3)


def colours(numbers: tuple[float, ...], like: Tensor) -> Tensor:
    """A number for red, green and blue each, to be used on float[batch 3 frames height width]."""
    return torch.tensor(numbers, dtype=like.dtype, device=like.device)[:, None, None, None]
