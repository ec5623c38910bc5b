"""The work of tiles/preprocess: pictures cut into tiles, to the last bit as the published processors do it.

A size is (height, width) in pixels, a grid (rows, columns) in tiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from modelgraft.plugin import InputError, eight_bits, on_white
from modelgraft_plugins.pixels import normalised, prepared

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from modelgraft.plugin import LoadContext
    from modelgraft_plugins.tiles import Preprocess

Size = tuple[int, int]
LONGEST = 4096  # pixels of a side at most, whatever a file says: Idefics3ImageProcessor
WHOLE: Size = (0, 0)  # the grid of a picture that was not cut


@dataclass(frozen=True, slots=True)
class Cut:
    """What became of a picture.

    tiles  float32[3 height width] each;  grid  that it was cut into;  size  as it was given
    """

    tiles: Sequence[NDArray[np.float32]]
    grid: Size
    size: Size


def load(config: Preprocess, context: LoadContext) -> Callable[[list[Any]], Mapping[str, Any]]:
    """Make the function from the pictures of records to their tiles.

    It raises InputError for a record that has more tiles than the budget.
    """
    if config.do_normalize and None in (config.image_mean, config.image_std):
        raise InputError(f"{context.node.name}: do_normalize needs image_mean and image_std; give both, or set do_normalize: false")

    def run(image: list[Any]) -> Mapping[str, Any]:
        records = [_pictures(given) for given in image]
        cut = [[_cut(one, config, alone=len(pictures) == 1) for one in pictures] for pictures in records]
        for row, found in enumerate(cut):
            _refuse_beyond(config, found, f"{context.node.name}: record {row}")
        tiles = [[tile for one in found for tile in one.tiles] for found in cut]
        patch = config.patch_size or 1
        longest = (max((tile.shape[side] for some in tiles for tile in some), default=0) for side in (1, 2))
        height, width = (math.ceil(side / patch) * patch for side in longest)
        pixels: list[Any] = [
            torch.from_numpy(np.stack([_filled_up(tile, (height, width)) for tile in some])) if some else [] for some in tiles
        ]
        shapes = {"shapes": [_shapes(some) for some in tiles]} if config.is_native else {}
        return {"pixels": pixels, **shapes, **_about(cut)}

    return run


def _pictures(given: Any) -> Sequence[Any]:
    """The pictures of a record: one, several, or none."""
    if given is None or isinstance(given, list | tuple):
        return given or ()
    return (given,)


def _shapes(tiles: Sequence[NDArray[np.float32]]) -> Any:
    """Height and width of each, int64[tiles 2]; of none, none."""
    return torch.tensor([tile.shape[1:] for tile in tiles]) if tiles else []


def _filled_up(tile: NDArray[np.float32], size: Size) -> NDArray[np.float32]:
    """With zeros on the right and below."""
    return np.pad(tile, ((0, 0), (0, size[0] - tile.shape[1]), (0, size[1] - tile.shape[2])))


def _about(records: Sequence[Sequence[Cut]]) -> dict[str, torch.Tensor]:
    """How many tiles, in which grid, of which size each picture is; zeros behind the last one of a record."""
    most = max(map(len, records), default=0)
    counts = torch.zeros(len(records), most, dtype=torch.int64)
    grids, sizes = (torch.zeros(len(records), most, 2, dtype=torch.int64) for _ in range(2))
    for row, found in enumerate(records):
        for place, one in enumerate(found):
            counts[row, place] = len(one.tiles)
            grids[row, place], sizes[row, place] = torch.tensor(one.grid), torch.tensor(one.size)
    return {"counts": counts, "grids": grids, "sizes": sizes}


def _refuse_beyond(config: Preprocess, found: Sequence[Cut], place: str) -> None:
    there = sum(len(one.tiles) for one in found)
    if config.budget is not None and there > config.budget:
        has = f"{place} has {len(found)} picture{'s' if len(found) != 1 else ''} of {there} tiles"
        raise InputError(f"{has}, and the budget is {config.budget}: show fewer or smaller pictures, or raise `budget`")


def _cut(given: Any, config: Preprocess, *, alone: bool) -> Cut:
    image = eight_bits(given, "tiles/preprocess")
    image = on_white(image) if config.do_convert_rgb else image.convert("RGB")
    size = (image.height, image.width)
    if config.cut == "resolutions":
        grid, pieces = _fitted(image, config) if alone or not config.alone else (WHOLE, [_squared(image, config)])
        return Cut([prepared(piece, config, name="tiles/preprocess") for piece in pieces], grid, size)
    ways = {"grid": _in_rows, "shape": _by_shape, "crops": _cropped, "none": _left_whole, "native": _native, "corners": _in_corners}
    grid, pieces = ways[config.cut](image, config)
    return Cut([normalised(np.asarray(piece), config) for piece in pieces], grid, size)


def _scaled(image: Image.Image, size: Size, config: Preprocess) -> Image.Image:
    return image.resize((size[1], size[0]), resample=config.resample)


def _tiles_of(image: Image.Image, tile: int) -> Iterator[Image.Image]:
    """The tiles of a picture whose sides are whole numbers of them, row by row."""
    for top in range(0, image.height, tile):
        for left in range(0, image.width, tile):
            yield image.crop((left, top, left + tile, top + tile))


# -- none, grid: Idefics 3 and SmolVLM --------------------------------------------------------------------------------------------


def _left_whole(image: Image.Image, config: Preprocess) -> tuple[Size, list[Image.Image]]:
    return WHOLE, [_scaled(_lengthened(image, config), (config.tile, config.tile), config)]


def _in_rows(image: Image.Image, config: Preprocess) -> tuple[Size, list[Image.Image]]:
    tile = config.tile
    image = _lengthened(image, config)
    image = _scaled(image, _whole_tiles((image.height, image.width), tile), config)
    grid = (image.height // tile, image.width // tile)
    if grid == (1, 1):
        return WHOLE, [image]
    return grid, [*_tiles_of(image, tile), _scaled(image, (tile, tile), config)]


def _lengthened(image: Image.Image, config: Preprocess) -> Image.Image:
    """Bring the longer side to `longest`; the shorter one becomes even."""
    if config.longest is None or not config.do_resize:
        return image
    return _scaled(image, _below(_to_longest((image.height, image.width), config.longest), LONGEST), config)


def _to_longest(size: Size, longest: int) -> Size:
    height, width = size
    ratio = width / height
    if width >= height:
        short = int(longest / ratio)
        return max(short + short % 2, 1), longest
    short = int(longest * ratio)
    return longest, max(short + short % 2, 1)


def _below(size: Size, most: int) -> Size:
    height, width = size
    ratio = width / height
    if width >= height and width > most:
        height, width = int(most / ratio), most
    elif height > width and height > most:
        height, width = most, int(most * ratio)
    return max(height, 1), max(width, 1)


def _whole_tiles(size: Size, tile: int) -> Size:
    """Both sides as whole tiles: the longer one first, the other by the shape that the picture had."""

    def up(side: int) -> int:
        return math.ceil(side / tile) * tile

    height, width = size
    ratio = width / height
    if width >= height:
        return up(int(up(width) / ratio)), up(width)
    return up(height), up(int(up(height) * ratio))


# -- native, corners: Idefics 2 ---------------------------------------------------------------------------------------------------


def _native(image: Image.Image, config: Preprocess) -> tuple[Size, list[Image.Image]]:
    return WHOLE, [_bounded(image, config)]


def _in_corners(image: Image.Image, config: Preprocess) -> tuple[Size, list[Image.Image]]:
    """The four quarters, and the picture; of an odd side the later quarter is the larger one."""
    if min(image.size) < 2:
        raise InputError(f"a picture of {image.width} x {image.height} pixels cannot be cut into quarters: show a larger one")
    middle, centre = image.width // 2, image.height // 2
    corners = [
        image.crop((left, top, right, bottom))
        for top, bottom in ((0, centre), (centre, image.height))
        for left, right in ((0, middle), (middle, image.width))
    ]
    return (2, 2), [_bounded(piece, config) for piece in (*corners, image)]


def _bounded(image: Image.Image, config: Preprocess) -> Image.Image:
    """Within the shortest and the longest side, in its shape as far as that goes."""
    if config.longest is None or config.shortest is None or not config.do_resize:
        return image
    height, width = _below((image.height, image.width), config.longest)
    return _scaled(image, (max(height, config.shortest), max(width, config.shortest)), config)


# -- resolutions: LLaVA-NeXT, LLaVA-OneVision -------------------------------------------------------------------------------------


def _fitted(image: Image.Image, config: Preprocess) -> tuple[Size, list[Image.Image]]:
    """The picture as a whole, and the tiles of it in the middle of the best size, on black."""
    height, width = best = best_resolution((image.height, image.width), config.resolutions)
    inner = _inner((image.height, image.width), best)
    canvas = Image.new("RGB", (width, height))
    canvas.paste(_scaled(image, inner, config), ((width - inner[1]) // 2, (height - inner[0]) // 2))
    whole = _scaled(image, _whole_size(config), config)
    return (height // config.tile, width // config.tile), [whole, *_tiles_of(canvas, config.tile)]


def _whole_size(config: Preprocess) -> Size:
    edge = config.size.get("shortest_edge")
    return (edge, edge) if edge is not None else (config.size["height"], config.size["width"])


def _inner(size: Size, best: Size) -> Size:
    """The largest size of the same shape within another."""
    across, down = best[1] / size[1], best[0] / size[0]
    if across < down:
        return min(math.ceil(size[0] * across), best[0]), best[1]
    return best[0], min(math.ceil(size[1] * down), best[1])


def best_resolution(size: Size, resolutions: Sequence[Size]) -> Size:
    """The size that keeps most of a picture's pixels, and of several such the one that wastes least; the first of equals."""
    height, width = size

    def merit(wanted: Size) -> tuple[int, int]:
        scale = min(wanted[1] / width, wanted[0] / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        return kept, kept - wanted[0] * wanted[1]

    return max(resolutions, key=merit)


def _squared(image: Image.Image, config: Preprocess) -> Image.Image:
    """The picture in the middle of a square of the colour that becomes 0."""
    side = max(image.size)
    if image.width == image.height:
        return image
    colour = tuple(int(value * 255) for value in config.image_mean or (0.0, 0.0, 0.0))
    canvas = Image.new("RGB", (side, side), colour)
    canvas.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return canvas


# -- shape: InternVL --------------------------------------------------------------------------------------------------------------


def _by_shape(image: Image.Image, config: Preprocess) -> tuple[Size, list[Image.Image]]:
    tile = config.tile
    rows, columns = _nearest_grid((image.height, image.width), tile, config.least_tiles, config.most_tiles)
    pieces = list(_tiles_of(_scaled(image, (rows * tile, columns * tile), config), tile))
    if len(pieces) == 1:
        return WHOLE, pieces
    return (rows, columns), [*pieces, _scaled(image, (tile, tile), config)]


def _nearest_grid(size: Size, tile: int, least: int, most: int) -> Size:
    """The grid whose shape is nearest to the picture's; of two the larger one, while it is at most twice as large as the picture.

    Grids are tried from the smallest, narrow ones first.
    """
    height, width = size
    ratio, best, nearest = width / height, (1, 1), math.inf
    every = ((rows, columns) for columns in range(1, most + 1) for rows in range(1, most + 1) if least <= rows * columns <= most)
    for rows, columns in sorted(every, key=math.prod):
        distance = abs(ratio - columns / rows)
        if distance < nearest or (distance == nearest and width * height > 0.5 * tile * tile * rows * columns):
            nearest, best = distance, (rows, columns)
    return best


# -- crops: Gemma 3 ---------------------------------------------------------------------------------------------------------------


def _cropped(image: Image.Image, config: Preprocess) -> tuple[Size, list[Image.Image]]:
    """The picture as a whole, and crops along its longer side, each made a square of its own."""
    rows, columns = _crops((image.height, image.width), config)
    tile = (config.tile, config.tile)
    whole = _scaled(image, tile, config)
    if rows * columns <= 1:
        return WHOLE, [whole]
    height, width = math.ceil(image.height / rows), math.ceil(image.width / columns)
    corners = [(left * width, top * height) for top in range(rows) for left in range(columns)]
    pieces = [image.crop((left, top, min(left + width, image.width), min(top + height, image.height))) for left, top in corners]
    return (rows, columns), [whole, *(_scaled(piece, tile, config) for piece in pieces)]


def _crops(size: Size, config: Preprocess) -> Size:
    """Rows and columns of crops: as many as the longer side is times the other; 0 0 for none."""
    short, long = sorted(size)
    if long / short < config.least_ratio:
        return WHOLE
    count = min(math.floor(long / config.least_crop), math.floor(long / short + 0.5))
    count = min(config.most_crops, max(2, count))
    if min(short, math.ceil(long / count)) < config.least_crop:
        return WHOLE
    return (1, count) if size[1] >= size[0] else (count, 1)
