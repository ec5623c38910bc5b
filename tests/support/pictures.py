"""Pictures of awkward shapes and modes."""

from __future__ import annotations

import numpy as np
from PIL import Image


def picture(width: int, height: int, mode: str = "RGB", *, seed: int = 0) -> Image.Image:
    """Smooth coloured noise, so that filters and crops show."""
    noise = np.random.default_rng(seed).integers(0, 256, (max(2, height // 3), max(2, width // 3), 4), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def on_white(image: Image.Image) -> Image.Image:
    """The picture as RGB, with white behind what is transparent: pixel by pixel, alpha times colour plus the rest white."""
    if image.mode != "RGBA":
        return image.convert("RGB")
    values = np.asarray(image).astype(np.float64)
    alpha = values[..., 3:] / 255
    return Image.fromarray(np.round(values[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8))


def gallery() -> dict[str, Image.Image]:
    """One picture of each awkward kind."""
    return {
        "landscape": picture(61, 23, seed=1),
        "portrait": picture(19, 47, seed=2),
        "square": picture(30, 30, seed=3),
        "grey": picture(37, 29, "L", seed=4),
        "rgba": picture(33, 41, "RGBA", seed=5),
        "palette": picture(35, 31, "P", seed=6),
        "tiny": picture(3, 2, seed=7),
        "one wide": picture(1, 40, seed=8),
        "one high": picture(40, 1, seed=9),
    }
