"""The work of tiles/pack: the vectors of tiles laid out as the picture that they were cut from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from modelgraft.plugin import InputError
from modelgraft_plugins.tiles.joining import Tiles, filled_up, pictures_of

if TYPE_CHECKING:
    from modelgraft.plugin import Weights
    from modelgraft_plugins.tiles import Pack as PackConfig

Size = tuple[int, int]
SLACK = 1.1  # so many times too large on each side a picture may be before it is scaled down: LLaVA-OneVision
DIGITS = 7  # that a side is rounded to before it is cut to whole vectors, as published


class Pack(nn.Module):
    """A picture in rows.

    tokens   of each record the vectors of its tiles, float[tokens width] each; of a picture that was cut the whole one comes first
    counts   int64[batch media], grids int64[batch media 2], sizes int64[batch media 2]: as tiles/preprocess gives them
    returns  image float[batch image_tokens width], lengths int64[batch media]
    """

    def __init__(self, config: PackConfig) -> None:
        super().__init__()
        self.width, self.most = config.width or 1, config.most_tiles
        self.newline = nn.Parameter(torch.empty(self.width))
        nn.init.normal_(self.newline, std=self.width**-0.5)  # as published

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """The part is the tensor itself."""
        return {"newline" if name == "" else name: tensor for name, tensor in weights.state().items()}

    def forward(self, tokens: Sequence[Tiles], counts: Tensor, grids: Tensor, sizes: Tensor) -> dict[str, Tensor]:
        """Lay out the pictures of each record."""
        records = []
        for row, given in enumerate(tokens):
            pictures = pictures_of(given, counts[row], place=f"tiles/pack: record {row}")
            facts = zip(pictures, grids[row].tolist(), sizes[row].tolist(), strict=False)
            records.append([self._laid_out(tiles, tuple(grid), tuple(size)) for tiles, grid, size in facts])
        return filled_up(records, media=counts.shape[1], width=self.width)

    def _laid_out(self, tiles: Sequence[Tensor], grid: Size, size: Size) -> Tensor:
        """One picture: float[tokens width]."""
        newline = self.newline.to(tiles[0].dtype)
        if grid == (0, 0):
            return torch.cat([tiles[0], newline[None]])
        whole, *pieces = tiles
        side = _side(len(whole))
        rows, columns = grid
        picture = torch.stack(pieces).reshape(rows, columns, side, side, -1)
        picture = picture.transpose(1, 2).flatten(2, 3).flatten(0, 1)  # [rows*side columns*side width]
        picture = self._scaled_down(without_borders(picture, size), side)
        picture = torch.cat([picture, newline.expand(len(picture), 1, -1)], dim=1)
        return torch.cat([whole, picture.flatten(0, 1)])

    def _scaled_down(self, picture: Tensor, side: int) -> Tensor:
        """float[height width d], with at most about `most` tiles of vectors."""
        height, width = picture.shape[:2]
        ratio = math.sqrt(height * width / (self.most * side**2)) if self.most is not None else 1.0
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


def _side(tokens: int) -> int:
    side: Any = math.isqrt(tokens)
    if side * side != tokens:
        raise InputError(
            f"tiles/pack got tiles of {tokens} vectors, wanted a square grid: a class token must be left out (select: patches)"
        )
    return int(side)
