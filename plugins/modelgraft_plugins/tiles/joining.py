"""The work of tiles/join: the vectors of all tiles of a record, one behind the other, and the text around them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from modelgraft.plugin import InputError

if TYPE_CHECKING:
    from modelgraft.plugin import LoadContext
    from modelgraft_plugins.tiles import Join

Tiles = Sequence[Any]  # of a record: float[tokens width] each, or ABSENT where the branch gave nothing


def pictures_of(tokens: Tiles, counts: Tensor, *, place: str) -> list[list[Tensor]]:
    """The tiles of a record by its pictures.

    counts  int64[media]: how many each has, 0 behind the last

    Raises InputError where the branch gave nothing for a tile, or another number of them.
    """
    sizes = [count for count in counts.tolist() if count]
    if len(tokens) != sum(sizes):
        raise InputError(f"{place} has {len(tokens)} tiles, and its pictures were cut into {sum(sizes)}")
    if lost := [number for number, one in enumerate(tokens, 1) if not isinstance(one, Tensor)]:
        raise InputError(f"{place} has no vectors of tile {lost[0]}, for which an earlier node failed")
    waiting = iter(tokens)
    return [[next(waiting) for _ in range(size)] for size in sizes]


def filled_up(records: Sequence[Sequence[Tensor]], *, media: int, width: int) -> dict[str, Tensor]:
    """The vectors of pictures, float[tokens width] each, as a batch; `media` are the most that a record has.

    returns  image float[batch image_tokens width], zeros behind the last of a record;  lengths int64[batch media]
    """
    lengths = torch.zeros(len(records), media, dtype=torch.int64)
    some = next((one for pictures in records for one in pictures), torch.zeros(0, width))
    longest = max((sum(map(len, pictures)) for pictures in records), default=0)
    image = some.new_zeros(len(records), longest, some.shape[-1])
    for row, pictures in enumerate(records):
        lengths[row, : len(pictures)] = torch.tensor([len(one) for one in pictures], dtype=torch.int64)
        if pictures:
            image[row, : sum(map(len, pictures))] = torch.cat(list(pictures))
    return {"image": image, "lengths": lengths}


def join(config: Join, context: LoadContext) -> Callable[..., Mapping[str, Any]]:
    """Make the function from the tiles of records to their vectors and words."""
    node = context.node.name

    def run(tokens: Sequence[Tiles], counts: Tensor, grids: Tensor) -> Mapping[str, Any]:
        records, words = [], []
        for row, (given, there, cut) in enumerate(zip(tokens, counts, grids, strict=True)):
            pictures = pictures_of(given, there, place=f"{node}: record {row}")
            records.append([torch.cat(tiles) for tiles in pictures])
            words.append(["".join(_words(config, tiles, tuple(grid.tolist()))) for tiles, grid in zip(pictures, cut, strict=False)])
        return {**filled_up(records, media=counts.shape[1], width=config.width or 1), "words": words}

    return run


def _words(config: Join, tiles: Sequence[Tensor], grid: tuple[int, int]) -> Iterator[str]:
    """The text around one picture."""
    if grid == (0, 0):
        yield config.single.replace("{image}", config.placeholder * len(tiles[0]))
        return
    before, _, behind = config.around.partition("{image}")
    cut = grid[0] * grid[1]
    row = tiles[len(tiles) - cut :] if config.first else tiles[:cut]
    rest = [config.rest.replace("{image}", config.placeholder * len(tile)) for tile in tiles if not any(tile is one for one in row)]
    yield before
    yield from rest if config.first else ()
    yield config.between.join(_tile(config, tile, *divmod(number, grid[1]), last=grid[1] - 1) for number, tile in enumerate(row))
    yield from () if config.first else rest
    yield behind


def _tile(config: Join, tile: Tensor, row: int, column: int, *, last: int) -> str:
    """The text around a tile; rows and columns count from 0."""
    text = config.tile.replace("{row}", str(row + 1)).replace("{column}", str(column + 1))
    return text.replace("{image}", config.placeholder * len(tile)) + (config.line if column == last else "")
