"""Pixels as pictures, and pictures as pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import torch
from PIL import Image
from torch import Tensor

from modelgraft.plugin import LoadContext, eight_bits, on_white


def load(config: Any, context: LoadContext) -> Callable[[Tensor], list[Image.Image]]:  # noqa: ARG001 it has no settings
    """Give the function that makes pictures of float[batch 3 height width]."""
    return _pictures


def load_pixels(config: Any, context: LoadContext) -> Callable[[list[Image.Image]], Tensor]:  # noqa: ARG001 as every load has it
    """Give the function that makes float[batch 3 height width] from -1 to 1 of pictures."""

    def pixels(images: list[Image.Image]) -> Tensor:
        return torch.stack([of_picture(image, height=config.height, width=config.width) for image in images])

    return pixels


def of_picture(image: Image.Image, *, height: int, width: int) -> Tensor:
    """float[3 height width] from -1 to 1. Source: diffusers, VaeImageProcessor.preprocess, which resizes by Lanczos."""
    plain = on_white(eight_bits(image, "diffusion/pixels"))
    if plain.size != (width, height):
        plain = plain.resize((width, height), Image.Resampling.LANCZOS)
    return torch.from_numpy(numpy.array(plain)).permute(2, 0, 1).to(torch.float32) / 255 * 2 - 1


def pictures_of(pixels: Tensor) -> list[Image.Image]:
    """As diffusion/picture does it."""
    return _pictures(pixels)


def _pictures(pixels: Tensor) -> list[Image.Image]:
    """(x / 2 + 1/2) between 0 and 1, times 255, rounded. Source: diffusers, VaeImageProcessor.postprocess."""
    between = (pixels.to(torch.float32) / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    return [Image.fromarray(record) for record in (between * 255).round().to(torch.uint8).cpu().numpy()]
