"""The work of vision/preprocess: batches of pictures of one size."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from modelgraft.plugin import InputError, LoadContext
from modelgraft_plugins.pixels import prepared

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

    from modelgraft_plugins.vision import Preprocess

    Pixels = NDArray[np.float32]


def load(config: Preprocess, context: LoadContext) -> Callable[[list[Any]], Pixels]:
    """Make the function from pictures to float32[batch 3 height width], or from lists of them to float32[batch images 3 height width]."""
    if config.do_normalize and None in (config.image_mean, config.image_std):
        raise InputError(f"{context.node.name}: do_normalize needs image_mean and image_std; give both, or set do_normalize: false")
    steps = config.settled()

    def prepare(images: list[Image.Image]) -> Pixels:
        pixels = [prepared(image, steps, name="vision/preprocess") for image in images]
        sizes = sorted({picture.shape[1:] for picture in pixels})
        if len(sizes) > 1:
            listed = ", ".join(f"{width}x{height}" for height, width in sizes)
            raise InputError(
                f"pictures of one batch must have one size, and these have {listed} after preparing: crop them, or give one at a time"
            )
        return np.stack(pixels)

    def prepare_lists(records: list[list[Image.Image]]) -> Pixels:
        flat = [image for record in records for image in record]
        if not flat:
            raise InputError(f"{context.node.name}: no record has a picture: give at least one")
        pixels, start = prepare(flat), 0
        whole = np.zeros((len(records), max(map(len, records)), *pixels.shape[1:]), pixels.dtype)
        for place, record in zip(whole, records, strict=True):
            place[: len(record)] = pixels[start : start + len(record)]
            start += len(record)
        return whole

    return prepare_lists if config.many else prepare
