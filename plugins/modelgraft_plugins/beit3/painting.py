"""The work of beit3/code_picture, on PIL and numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from modelgraft.plugin import LoadContext, eight_bits, on_white

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from modelgraft_plugins.beit3.vqkd import CodePicture

GAP = 8  # pixels between the picture and its tiles
SEED = 7  # of the three directions that the colours are read along: any would do, and it is the same in all pictures
SPREAD = 70.0  # levels of a colour for one standard deviation of codes, so that few colours are cut at 0 or 255
MOST_NUMBERED = 18  # a tile below so many pixels has no room for a number
LINE = (20, 20, 20)


def load(config: CodePicture, _context: LoadContext) -> Callable[[list[Any], Tensor, Tensor], list[Image.Image]]:
    """Make the function from pictures with their ids and codes to pictures of both, side by side."""

    def paint(images: list[Any], grids: Tensor, codes: Tensor) -> list[Image.Image]:
        rows = zip(images, grids.cpu().numpy(), codes.float().cpu().numpy(), strict=True)
        return [_beside(image, _tiles(numbers, vectors, config)) for image, numbers, vectors in rows]

    return paint


def _beside(image: Any, tiles: Image.Image) -> Image.Image:
    """The picture as it was read, a square as the tokenizer sees it, with its tiles at its right."""
    picture = on_white(eight_bits(image, "beit3/code_picture")).resize(tiles.size, Image.Resampling.BICUBIC)
    whole = Image.new("RGB", (2 * tiles.width + GAP, tiles.height), "white")
    whole.paste(picture, (0, 0))
    whole.paste(tiles, (tiles.width + GAP, 0))
    return whole


def _tiles(grid: NDArray[Any], codes: NDArray[Any], config: CodePicture) -> Image.Image:
    """grid int64[rows columns], codes float[d rows columns]."""
    tile = config.tile
    colours = np.asarray(_colours(codes), np.uint8)
    whole = Image.fromarray(colours.repeat(tile, 0).repeat(tile, 1))
    draw = ImageDraw.Draw(whole)
    _lines(draw, grid, tile)
    if config.numbers and tile >= MOST_NUMBERED:
        font = ImageFont.load_default(size=max(8, tile // 3))
        for (row, column), number in np.ndenumerate(grid):
            middle = (column * tile + tile // 2, row * tile + tile // 2)
            draw.text(middle, str(number), fill=_ink(colours[row, column]), font=font, anchor="mm")
    return whole


def _colours(codes: NDArray[Any]) -> NDArray[Any]:
    """A colour for each code: where it lies along three directions at right angles, drawn once for all; float[rows columns 3]."""
    size = codes.shape[0]
    drawn = np.random.default_rng(SEED).normal(size=(max(size, 3), 3))
    directions = np.linalg.qr(drawn)[0][:size]
    along: NDArray[Any] = np.einsum("drc,dk->rck", codes, directions) * np.sqrt(size)  # of vectors of length 1 each has a deviation of 1
    return np.asarray(np.clip(127.5 + SPREAD * along, 0, 255))


def _lines(draw: ImageDraw.ImageDraw, grid: NDArray[Any], tile: int) -> None:
    """Between neighbours of unlike ids."""
    for row, column in zip(*np.nonzero(grid[:, 1:] != grid[:, :-1]), strict=True):
        x = (int(column) + 1) * tile
        draw.line((x, int(row) * tile, x, (int(row) + 1) * tile), fill=LINE)
    for row, column in zip(*np.nonzero(grid[1:] != grid[:-1]), strict=True):
        y = (int(row) + 1) * tile
        draw.line((int(column) * tile, y, (int(column) + 1) * tile, y), fill=LINE)


def _ink(colour: NDArray[Any]) -> str:
    """Black on what is bright, white on what is dark."""
    return "black" if float(np.dot(colour, (0.299, 0.587, 0.114))) > 127.5 else "white"
