"""The work of tiles/pack: the vectors of tiles laid out as the picture that they were cut from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from modelgraft.plugin import InputError
from modelgraft_plugins.tiles.joining import Tiles, filled_up, pictures_of

if TYPE_CHECKING:
    from modelgraft.plugin import LoadContext, Weights
    from modelgraft_plugins.tiles import Newline as NewlineConfig
    from modelgraft_plugins.tiles import Pack as PackConfig

Size = tuple[int, int]
SLACK = 1.1  # so many times too large on each side a picture may be before it is scaled down: LLaVA-OneVision
DIGITS = 7  # that a side is rounded to before it is cut to whole vectors, as published


class Newline(nn.Module):
    """A learned vector: float[width], for each tile of float[batch tokens width] once."""

    def __init__(self, config: NewlineConfig) -> None:
        super().__init__()
        width = config.width or 1
        self.newline = nn.Parameter(torch.empty(width))
        nn.init.normal_(self.newline, std=width**-0.5)  # as published

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """The part is the tensor itself."""
        return {"newline" if name == "" else name: tensor for name, tensor in weights.state().items()}

    def forward(self, x: Tensor) -> Tensor:
        """Repeat it for each tile."""
        return self.newline.expand(x.shape[0], -1)


def pack(config: PackConfig, context: LoadContext) -> Callable[..., dict[str, Tensor]]:
    """Make the function from the tiles of records to pictures in rows.

    tokens   of each record the vectors of its tiles, float[tokens width] each; of a picture that was cut the whole one comes first
    newline  of each record the vector behind a row, float[width] once for each tile
    counts   int64[batch media], grids int64[batch media 2], sizes int64[batch media 2]: as tiles/preprocess gives them
    returns  image float[batch image_tokens width], lengths int64[batch media]
    """
    node = context.node.name

    def run(tokens: Sequence[Tiles], newline: Sequence[Tiles], counts: Tensor, grids: Tensor, sizes: Tensor) -> dict[str, Tensor]:
        records = []
        for row, given in enumerate(tokens):
            pictures = pictures_of(given, counts[row], place=f"{node}: record {row}")
            facts = zip(pictures, grids[row].tolist(), sizes[row].tolist(), strict=False)
            records.append([_laid_out(tiles, newline[row][0], tuple(grid), tuple(size)) for tiles, grid, size in facts])
        return filled_up(records, media=counts.shape[1], width=config.width or 1)

    def _laid_out(tiles: Sequence[Tensor], newline: Tensor, grid: Size, size: Size) -> Tensor:
        """One picture: float[tokens width]."""
        if grid == (0, 0):
            return torch.cat([tiles[0], newline[None]])
        whole, *pieces = tiles
        side = _side(len(whole), node)
        picture = torch.stack(pieces).reshape(*grid, side, side, -1)
        picture = picture.transpose(1, 2).flatten(2, 3).flatten(0, 1)  # [rows*side columns*side width]
        picture = scaled_down(without_borders(picture, size), side, most=config.most_tiles)
        picture = torch.cat([picture, newline.expand(len(picture), 1, -1)], dim=1)
        return torch.cat([whole, picture.flatten(0, 1)])

    return run


def scaled_down(picture: Tensor, side: int, *, most: int | None) -> Tensor:
    """A picture in rows, float[height width d], with at most about so many times the vectors of a tile, `side` squared."""
    height, width = picture.shape[:2]
    ratio = math.sqrt(height * width / (most * side**2)) if most is not None else 1.0
    if ratio <= SLACK:
        return picture
    wanted = [int(height // ratio), int(width // ratio)]
    return nn.functional.interpolate(picture.permute(2, 0, 1)[None], wanted, mode="bilinear")[0].permute(1, 2, 0)


def without_borders(picture: Tensor, size: Size) -> Tensor:
    """Leave out the vectors that see nothing but the black around a picture: float[height width d], of a picture of a size in pixels."""
    height, width = picture.shape[:2]
    if size[1] / size[0] > width / height:
        border = (height - int(round(size[0] * (width / size[1]), DIGITS))) // 2
        return picture[border : height - border]
    border = (width - int(round(size[1] * (height / size[0]), DIGITS))) // 2
    return picture[:, border : width - border]


def _side(tokens: int, node: str) -> int:
    side = math.isqrt(tokens)
    if side * side != tokens:
        raise InputError(f"{node} got tiles of {tokens} vectors, wanted a square grid: a class token must be left out (select: patches)")
    return side
