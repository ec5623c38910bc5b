"""The work of patches/prepare: pictures at their own size, cut into patches. Equal to the last bit to transformers' processors on PIL."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from modelgraft.plugin import InputError, LoadContext, eight_bits, on_white
from modelgraft_plugins.pixels import normalised

if TYPE_CHECKING:
    from modelgraft_plugins.patches import Cutting, Prepare

Grid = tuple[int, int, int]  # frames, rows, columns
LONGEST_STRIP = 200  # times longer than wide: what Qwen2-VL's processor refuses beyond


def load(config: Prepare, _context: LoadContext) -> Callable[[list[Any]], dict[str, Any]]:
    """Make the function from pictures, or lists of them, to patches and what is known of each picture."""

    def prepare(image: list[Any]) -> dict[str, Any]:
        records = image if config.many else [[one] for one in image]
        return laid_out([[cut_up(one, config) for one in record] for record in records], config)

    return prepare


def laid_out(cut: Sequence[Sequence[tuple[torch.Tensor, Grid]]], config: Cutting) -> dict[str, Any]:
    """Patches and grids of the media of each record, as a batch, and what follows from the grids."""
    patches = [[rows for rows, _ in record] for record in cut]
    grids = [[grid for _, grid in record] for record in cut]
    group = config.merge_size
    joined = [[(frames, rows // group, columns // group) for frames, rows, columns in record] for record in grids]
    lengths = [[math.prod(grid) for grid in record] for record in joined]
    return {
        "patches": _side_by_side(patches, config.patch_values),
        "grids": _table(grids, 3),
        "lengths": _table([[(length,) for length in record] for record in lengths], 1)[..., 0],
        "token_grids": _table(joined, 3),
        "words": [[words(grid, config) for grid in record] for record in joined],
    }


def cut_up(image: Image.Image, config: Cutting) -> tuple[torch.Tensor, Grid]:
    """Resize, normalise and cut one picture of any mode: float32[patches values], and its frames, rows and columns of patches.

    Raises InputError for a strip that no whole groups of patches cover well, or a picture that is not resized and has torn patches.
    """
    pixels = fitting(image, config)
    return in_patches(pixels[None].expand(config.temporal_patch_size, *pixels.shape), config)


def fitting(image: Image.Image, config: Cutting) -> torch.Tensor:
    """Resize and normalise a picture of any mode: float32[3 height width] of whole groups of patches. Raises InputError as `cut_up`."""
    image = eight_bits(image, "patches/prepare")
    image = on_white(image) if config.do_convert_rgb else image.convert("RGB")
    if config.do_resize:
        image = image.resize(fitted(*image.size, config), resample=config.resample)
    group, size = config.merge_size, config.patch_size
    if image.width % (group * size) or image.height % (group * size):
        found = f"a picture of {image.width} x {image.height} pixels has no whole groups of {group} x {group} patches of {size} pixels"
        raise InputError(f"patches/prepare: {found}: set do_resize: true, or give one that has")
    return torch.from_numpy(normalised(np.asarray(image), config))  # type: ignore[arg-type]  # it has what is read of it


def in_patches(frames: torch.Tensor, config: Cutting) -> tuple[torch.Tensor, Grid]:
    """float32[frames 3 height width], as many as whole patches have, to float32[patches values] and the grid of them."""
    group, size, depth = config.merge_size, config.patch_size, config.temporal_patch_size
    times, rows, columns = len(frames) // depth, frames.shape[2] // size, frames.shape[3] // size
    blocks = frames.reshape(times, depth, 3, rows // group, group, size, columns // group, group, size).permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
    return blocks.reshape(times * rows * columns, config.patch_values), (times, rows, columns)


def fitted(width: int, height: int, config: Cutting) -> tuple[int, int]:
    """Width and height to resize to: whole groups of patches. Raises InputError for a strip far longer than wide."""
    if config.longest_edge is not None:
        return _within_edge(width, height, config.longest_edge, config.patch_size * config.merge_size)
    assert config.min_pixels is not None
    assert config.max_pixels is not None
    if max(width, height) > LONGEST_STRIP * min(width, height):
        raise InputError(
            f"patches/prepare: a picture of {width} x {height} pixels is more than {LONGEST_STRIP} times longer than wide: crop it first"
        )
    return _within_area(width, height, config.min_pixels, config.max_pixels, config.patch_size * config.merge_size)


def _within_edge(width: int, height: int, longest: int, step: int) -> tuple[int, int]:
    """Made smaller where a side is too long, and then enlarged to whole steps."""
    ratio = max(height / longest, width / longest)
    if ratio > 1:
        width, height = math.floor(width / ratio), math.floor(height / ratio)
    across, down = ((max(side, 1) - 1) // step + 1 for side in (width, height))
    return across * step, down * step


def _within_area(width: int, height: int, smallest: int, largest: int, step: int) -> tuple[int, int]:
    """The nearest whole steps; where their area is out of bounds, both sides are scaled alike and cut, or rounded up."""
    across, down = round(width / step) * step, round(height / step) * step
    if across * down > largest:
        scale = math.sqrt((height * width) / largest)
        across, down = (max(step, math.floor(side / scale / step) * step) for side in (width, height))
    elif across * down < smallest:
        scale = math.sqrt(smallest / (height * width))
        across, down = (math.ceil(side * scale / step) * step for side in (width, height))
    return across, down


def words(grid: Grid, config: Cutting) -> str:
    """The text in the place of a picture: the placeholder once for all of its tokens, or once for each row where something ends rows."""
    rows = grid[0] * grid[1] if config.row_end else 1
    return config.start + config.row_end.join([config.placeholder] * rows) + config.end


def _side_by_side(records: list[list[torch.Tensor]], values: int) -> torch.Tensor:
    """float32[batch patches values] of the patches of each record's pictures, zeros behind them."""
    whole = torch.zeros(len(records), max((sum(map(len, record)) for record in records), default=0), values)
    for place, record in zip(whole, records, strict=True):
        if record:
            torch.cat(record, out=place[: sum(map(len, record))])
    return whole


def _table(records: Sequence[Sequence[tuple[int, ...]]], width: int) -> torch.Tensor:
    """int64[batch media width], zeros behind the media of a record that has fewer."""
    whole = torch.zeros(len(records), max(map(len, records), default=0), width, dtype=torch.int64)
    for place, record in zip(whole, records, strict=True):
        if record:
            place[: len(record)] = torch.tensor(record)
    return whole
