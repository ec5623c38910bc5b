"""SimVLM behind its stem, in reading order: distances in the grid, encoder.

Source: arXiv 2108.10904, and for the distances arXiv 2106.04803, appendix A.1. The layers are those of Blenderbot in transformers, which
are what the paper leaves and the README decides: norms in front, GELU, learned positions. Letters: H rows and W columns of the grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BlenderbotConfig
from transformers.models.blenderbot.modeling_blenderbot import BlenderbotEncoderLayer

from modelgraft.plugin import InputError

if TYPE_CHECKING:
    from modelgraft.plugin import Weights
    from modelgraft_plugins import simvlm

SPREAD = 0.02  # of tables that are new
TABLE = "decoder.embed_tokens.weight"  # of the words, in a whole checkpoint: encoder, decoder and head have one


class Distances(nn.Module):
    """A learned number for each distance in rows and columns, of each head: float32[1 heads H*W H*W] of a grid of H by W.

    The table is float[(2H-1)*(2W-1) heads]; of a grid of another size it is resized by a bicubic filter first.
    """

    def __init__(self, grid: tuple[int, int], heads: int) -> None:
        super().__init__()
        self.grid = grid
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * grid[0] - 1) * (2 * grid[1] - 1), heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=SPREAD)

    def forward(self, grid: tuple[int, int]) -> Tensor:
        """Look up the number of every pair of cells, the query minus the key."""
        table: Tensor = self.relative_position_bias_table
        rows, columns = grid
        if grid != self.grid:
            whole = table.reshape(2 * self.grid[0] - 1, 2 * self.grid[1] - 1, -1)
            table = _resized(whole, (2 * rows - 1, 2 * columns - 1)).flatten(0, 1)
        y = torch.arange(rows, device=table.device).repeat_interleave(columns)
        x = torch.arange(columns, device=table.device).repeat(rows)
        place = (y[:, None] - y[None] + rows - 1) * (2 * columns - 1) + x[:, None] - x[None] + columns - 1
        return table[place].permute(2, 0, 1)[None]


class BiasedAttention(Distances):
    """logits float[batch heads H*W H*W] to attention, their softmax with the numbers added, and bias, the numbers for each record."""

    def __init__(self, config: simvlm.RelativeBias) -> None:
        super().__init__(config.grid, config.heads)

    def forward(self, logits: Tensor) -> dict[str, Tensor]:  # type: ignore[override]  # a part of its own
        """Add them before the softmax."""
        bias = super().forward(self.grid)
        return {"attention": (logits + bias).softmax(-1), "bias": bias.expand_as(logits)}


class Encoder(nn.Module):
    """A picture and the beginning of a text, read together.

    patches  float[batch H*W channels];  ids int64[batch prefix], mask bool[batch prefix] where there is a token; those that are wired
    returns  memory float[batch H*W+prefix d_model] and memory_mask bool[batch H*W+prefix]; what is not there gives no sense
    """

    def __init__(self, config: simvlm.Encoder) -> None:
        super().__init__()
        self.config, width, learned = config, config.d_model, (config.learned, config.learned)
        self.patch_proj = nn.Linear(config.channels, width)
        self.image_positions = nn.Parameter(torch.empty(config.learned**2, width))
        self.embed_tokens = nn.Embedding(config.vocab_size, width)
        self.text_positions = nn.Parameter(torch.empty(config.max_text, width))
        for table in (self.image_positions, self.text_positions, self.embed_tokens.weight):
            nn.init.trunc_normal_(table, std=SPREAD)
        made = layer_config(config, layers=config.encoder_layers)
        self.layers = nn.ModuleList(BlenderbotEncoderLayer(made) for _ in range(config.encoder_layers))
        self.distances = nn.ModuleList(Distances(learned, config.num_heads) for _ in range(config.encoder_layers))
        self.layer_norm = nn.LayerNorm(width)

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Take the encoder of a whole, and its table of words, which stands beside the decoder."""
        mine = [key for key in weights.keys() if key.startswith("encoder.")]  # noqa: SIM118 not a mapping
        return {**{key.removeprefix("encoder."): weights.tensor(key) for key in mine}, "embed_tokens.weight": weights.tensor(TABLE)}

    def forward(self, *given: Tensor | None) -> dict[str, Tensor]:
        """Read what there is, in the order of the ports."""
        names = (*(("patches",) if self.config.pictures else ()), *(("ids", "mask") if self.config.words else ()))
        parts = dict(zip(names, given, strict=False))
        entered, there = self._entered(parts)
        hidden, seen = torch.cat(entered, 1), torch.cat(there, 1)
        blocked = torch.zeros(seen.shape, dtype=hidden.dtype, device=hidden.device).masked_fill(~seen, torch.finfo(hidden.dtype).min)
        blocked = blocked[:, None, None].expand(-1, -1, hidden.shape[1], -1)  # as exports want it: they do not spread a mask over queries
        for layer, distances in zip(self.layers, self.distances, strict=True):
            hidden = layer(hidden, blocked + self._bias(distances, hidden))
        return {"memory": self.layer_norm(hidden), "memory_mask": seen}

    def _entered(self, parts: Mapping[str, Tensor | None]) -> tuple[list[Tensor], list[Tensor]]:
        """Vectors with positions, and where there is one, of the picture and of the text."""
        entered, there = list[Tensor](), list[Tensor]()
        if (patches := parts.get("patches")) is not None:
            side = self.config.learned
            grid = self.image_positions.reshape(side, side, -1)
            placed = self.patch_proj(patches) + _resized(grid, self.config.grid).flatten(0, 1)
            entered.append(placed)
            there.append(torch.ones(placed.shape[:2], dtype=torch.bool, device=placed.device))
        if (ids := parts.get("ids")) is not None:
            if ids.shape[1] > len(self.text_positions):
                raise InputError(f"a beginning has {ids.shape[1]} tokens, and there are {len(self.text_positions)} positions: shorten it")
            mask = parts.get("mask")
            seen = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
            places = (seen.to(torch.int64).cumsum(1) - 1).clamp(min=0)  # so that it is the same on which side a batch is filled up
            entered.append(self.embed_tokens(ids) + self.text_positions[places])
            there.append(seen)
        return entered, there

    def _bias(self, distances: nn.Module, hidden: Tensor) -> Tensor:
        """The numbers of the picture's block, 0 in all others: float[1 heads places places], or one number where there is no picture."""
        if not self.config.pictures:
            return hidden.new_zeros(1)
        behind = hidden.shape[1] - self.config.patches
        return functional.pad(distances(self.config.grid), (0, behind, 0, behind)).to(hidden.dtype)


def layer_config(config: simvlm.Encoder, *, layers: int) -> Any:
    """What transformers builds the layers from."""
    made: Any = BlenderbotConfig(
        vocab_size=config.vocab_size, d_model=config.d_model, max_position_embeddings=config.max_text,
        encoder_layers=layers, decoder_layers=layers, encoder_ffn_dim=config.ffn_dim, decoder_ffn_dim=config.ffn_dim,
        encoder_attention_heads=config.num_heads, decoder_attention_heads=config.num_heads,
        activation_function="gelu", scale_embedding=False, dropout=0.0,
    )  # fmt: skip
    made._attn_implementation = "sdpa"  # which the model around them tells its layers, and there is none
    return made


def _resized(grid: Tensor, size: tuple[int, int]) -> Tensor:
    """A grid of vectors, float[H W width], at another size; as it is at its own."""
    if tuple(grid.shape[:2]) == tuple(size):
        return grid
    return functional.interpolate(grid.permute(2, 0, 1)[None], size, mode="bicubic", align_corners=False)[0].permute(1, 2, 0)
