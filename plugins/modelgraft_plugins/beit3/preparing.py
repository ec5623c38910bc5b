"""The work of beit3/preprocess."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from modelgraft.plugin import InputError, LoadContext
from modelgraft_plugins.pixels import normalised, resized

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

    from modelgraft_plugins.beit3.pictures import Preprocess


def load(config: Preprocess, _context: LoadContext) -> Callable[[list[Image]], NDArray[np.float32]]:
    """Make the function from pictures to float32[batch 3 height width]."""

    def prepare(images: list[Image]) -> NDArray[np.float32]:
        pixels = [_prepared(image, config) for image in images]
        if len({picture.shape for picture in pixels}) > 1:
            raise InputError("beit3/preprocess: pictures of one batch have several sizes after preparing: set size to a height and a width")
        return np.stack(pixels)

    return prepare


def _prepared(image: Image, config: Preprocess) -> NDArray[np.float32]:
    """One picture as float32[3 height width]. A middle that lies between two pixels is the even one, as torchvision cuts it out."""
    pixels = resized(image, config, name="beit3/preprocess")
    if config.do_center_crop and config.crop_size:
        sides = config.crop_size["height"], config.crop_size["width"]
        if any(had < wanted for had, wanted in zip(pixels.shape, sides, strict=False)):
            found = (
                f"beit3/preprocess: a picture has {pixels.shape[0]} x {pixels.shape[1]} pixels before {sides[0]} x {sides[1]} are cut out"
            )
            raise InputError(f"{found}: set size to no less than crop_size")
        top, left = (round((had - wanted) / 2) for had, wanted in zip(pixels.shape, sides, strict=False))
        pixels = pixels[top : top + sides[0], left : left + sides[1]]
    return normalised(pixels, config)
