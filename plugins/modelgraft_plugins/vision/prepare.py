"""The work of vision/preprocess: the PIL image processors of transformers, so that pixels are equal to theirs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers.image_processing_backends import PilBackend

from modelgraft.backends.base import LoadContext
from modelgraft.errors import InputError
from modelgraft.media import PICTURE_PIXELS

if TYPE_CHECKING:
    from PIL.Image import Image

    from modelgraft_plugins.vision import Preprocess


def load(config: Preprocess, _context: LoadContext) -> Callable[[list[Image]], torch.Tensor]:
    """Make the function from pictures to float32[batch 3 height width]."""
    processor = PilBackend(
        do_resize=config.do_resize, size=dict(config.size), resample=config.resample, do_center_crop=config.do_center_crop,
        crop_size=dict(config.crop_size) if config.crop_size else None, do_rescale=config.do_rescale, rescale_factor=config.rescale_factor,
        do_normalize=config.do_normalize, image_mean=config.image_mean, image_std=config.image_std, do_convert_rgb=config.do_convert_rgb,
        default_to_square=False,
    )  # fmt: skip

    def prepare(images: list[Image]) -> torch.Tensor:
        for image in images:
            _refuse_thin(image, config)
        pixels = [
            np.asarray(processor(image if config.do_convert_rgb else image.convert("RGB"))["pixel_values"][0], dtype=np.float32)
            for image in images
        ]
        sizes = sorted({picture.shape[1:] for picture in pixels})
        if len(sizes) > 1:
            listed = ", ".join(f"{width}x{height}" for height, width in sizes)
            raise InputError(
                f"pictures of one batch must have one size, and these have {listed} after preparing: crop them, or give one at a time"
            )
        return torch.from_numpy(np.stack(pixels))

    return prepare


def _refuse_thin(image: Image, config: Preprocess) -> None:
    """A long strip whose shorter side is enlarged would fill the memory, however few pixels it has."""
    edge = config.size.get("shortest_edge")
    if not config.do_resize or edge is None:
        return
    longest = edge * max(image.size) // min(image.size)
    if edge * longest > PICTURE_PIXELS:
        found = f"a picture of {image.width} x {image.height} becomes {edge} x {longest} when its shorter side is {edge}"
        raise InputError(f"{found}, more than {PICTURE_PIXELS:,} pixels: crop it first")
