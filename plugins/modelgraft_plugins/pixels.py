"""Pictures made ready, on PIL and numpy: pixels are equal, to the last bit, to those of transformers' image processors.

Those are not wrapped, because importing them takes longer than everything else that a start on kept exports does; the
tests compare both. Heavy: import it from code that runs, not from a declaration.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from modelgraft.plugin import PICTURE_PIXELS, InputError, eight_bits, on_white

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from modelgraft_plugins.pictures import PictureSteps

    Pixels = NDArray[Any]  # uint8 or float32, [height width 3]


FINEST_SCALE, LARGEST_SCALE = 1e-5, 100.0  # of a picture that is cut into whole patches, as its published processor searches for it


def prepared(image: Image.Image, config: PictureSteps, *, name: str) -> NDArray[np.float32]:
    """One picture of any mode as float32[3 height width]. Raises InputError for a strip that would be enlarged beyond all bounds.

    name  of the component, in messages
    """
    pixels = resized(image, config, name=name)
    if config.do_center_crop and config.crop_size:
        pixels = cropped(pixels, config.crop_size["height"], config.crop_size["width"], even=config.crop_middle == "even")
    return normalised(pixels, config)


def resized(image: Image.Image, config: PictureSteps, *, name: str) -> Pixels:
    """A picture in red, green and blue at the size that is wanted: uint8[height width 3], float32 where nothing is rounded."""
    refuse_thin(image, config)
    image = eight_bits(image, name)  # another node may have made it
    image = on_white(image) if config.do_convert_rgb else image.convert("RGB")
    image = squared(image, config) if config.do_pad else image
    if not config.do_resize:
        return np.asarray(image)
    size = _resized(image, config)
    if config.rounds:
        return np.asarray(image.resize(size, resample=config.resample))
    planes = [Image.fromarray(np.asarray(plane, np.float32)).resize(size, resample=config.resample) for plane in image.split()]
    return np.stack([np.asarray(plane) for plane in planes], -1)


def squared(image: Image.Image, config: PictureSteps) -> Image.Image:
    """The picture in the middle of a square of the colour of the mean; of an odd number of pixels that are over, one more lies behind."""
    if image.width == image.height:
        return image
    side = max(image.size)
    whole = Image.new("RGB", (side, side), tuple(int(mean * 255) for mean in config.image_mean or (0.0,) * 3))
    whole.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return whole


def normalised(pixels: Pixels, config: PictureSteps) -> NDArray[np.float32]:
    """Numbers [... height width 3] as float32[... 3 height width] of the mean and std that are wanted.

    A byte has one of 256 values: what becomes of each is computed once, and looked up, which gives the same bits in a fifth of the time.
    """
    if pixels.dtype != np.uint8:
        return np.ascontiguousarray(np.moveaxis(_computed(pixels, config), -1, -3), dtype=np.float32)
    table = _computed(np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1), config)  # [256 3]
    planes = np.moveaxis(pixels, -1, -3)
    found = np.empty(planes.shape, np.float32)
    for colour in range(3):
        np.take(np.ascontiguousarray(table[:, colour]), planes[..., colour, :, :], out=found[..., colour, :, :], mode="clip")
    return found


def _computed(pixels: Pixels, config: PictureSteps) -> Pixels:
    """Numbers [... 3] scaled and normalised, in the order of the published processors."""
    if config.do_rescale:
        pixels = (pixels.astype(np.float64) * config.rescale_factor).astype(np.float32)
    pixels = pixels.astype(np.float32)
    if config.do_normalize:
        pixels = (pixels - np.array(config.image_mean, np.float32)) / np.array(config.image_std, np.float32)
    return pixels


def _resized(image: Image.Image, config: PictureSteps) -> tuple[int, int]:
    """Width and height to resize to; the longer side is cut to whole pixels."""
    if config.max_num_patches is not None and config.patch_size is not None:
        return _patched(image, config.patch_size, config.max_num_patches)
    edge = config.size.get("shortest_edge")
    if edge is None:
        return config.size["width"], config.size["height"]
    longest = int(edge * max(image.size) / min(image.size))
    return (edge, longest) if image.width <= image.height else (longest, edge)


def _patched(image: Image.Image, patch: int, most: int) -> tuple[int, int]:
    """Width and height in whole patches, at most so many of them. The scale is searched for as published: to within 1e-5, below 100."""

    def sides(scale: float) -> tuple[int, int]:
        width, height = (max(patch, math.ceil(side * scale / patch) * patch) for side in image.size)
        return width, height

    low, high = FINEST_SCALE / 10, LARGEST_SCALE
    while high - low >= FINEST_SCALE:
        scale = (low + high) / 2
        width, height = sides(scale)
        low, high = (scale, high) if (width / patch) * (height / patch) <= most else (low, scale)
    return sides(low)


def cropped(pixels: Pixels, height: int, width: int, *, even: bool = False) -> Pixels:
    """The middle of a picture; one that is smaller gets a black border.

    even  half of an odd number that is over is rounded to the even neighbour, as torchvision does; otherwise it is cut off
    """
    had, across = pixels.shape[:2]
    above, left = max(height - had + 1, 0) // 2, max(width - across + 1, 0) // 2  # of the border; an odd pixel goes before
    top, start = _half(had - height, even=even) + above, _half(across - width, even=even) + left
    below, right = max(height - had, 0) - above, max(width - across, 0) - left
    whole = np.pad(pixels, ((above, max(below, 0)), (left, max(right, 0)), (0, 0)))
    return whole[max(top, 0) : min(top + height, len(whole)), max(start, 0) : min(start + width, whole.shape[1])]


def _half(over: int, *, even: bool) -> int:
    return round(over / 2) if even and over > 0 else over // 2


def refuse_thin(image: Image.Image, config: PictureSteps) -> None:
    """A long strip whose shorter side is enlarged would fill the memory, however few pixels it has."""
    edge = config.size.get("shortest_edge")
    if config.do_pad:
        if (side := max(image.size)) ** 2 > PICTURE_PIXELS:
            found = f"a picture of {image.width} x {image.height} becomes {side} x {side} when it is filled up to a square"
            raise InputError(f"{found}, more than {PICTURE_PIXELS:,} pixels: crop it first")
        return
    if not config.do_resize or edge is None or config.max_num_patches is not None:
        return
    longest = edge * max(image.size) // min(image.size)
    if edge * longest > PICTURE_PIXELS:
        found = f"a picture of {image.width} x {image.height} becomes {edge} x {longest} when its shorter side is {edge}"
        raise InputError(f"{found}, more than {PICTURE_PIXELS:,} pixels: crop it first")
