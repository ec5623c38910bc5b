"""The work of omnimae/beside: what was given, what was seen, and what was rebuilt, side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from modelgraft.plugin import LoadContext, Video
from modelgraft_plugins.omnimae.sizes import MEAN, STD

if TYPE_CHECKING:
    from modelgraft_plugins.omnimae import Beside as Config

HIDDEN, BETWEEN = 128, 255  # grey where a patch is hidden, white between


def load(config: Config, _context: LoadContext) -> Callable[[Tensor, Tensor, Tensor], list[Any]]:
    """Make the function from pixels, rebuilt pixels and a mask to a picture, or a film, for each record."""

    def show(pixels: Tensor, rebuilt: Tensor, mask: Tensor) -> list[Any]:
        hidden = spread(mask, config)
        given, made = painted(pixels), painted(rebuilt)
        seen = given.masked_fill(hidden, HIDDEN)
        made = torch.where(hidden, made, given) if config.paste else made
        gap = given.new_full((*given.shape[:-2], given.shape[-2], config.gap), BETWEEN)
        sheets = torch.cat([given, gap, seen, gap, made], dim=-1).movedim(1, -1).cpu().numpy()
        return [Image.fromarray(sheet) if config.is_still else Video(sheet, config.rate_hz) for sheet in sheets]

    return show


def painted(pixels: Tensor) -> Tensor:
    """float[batch 3 ...] to uint8 of the same shape."""
    axes = (3, *[1] * (pixels.ndim - 2))
    mean, std = (torch.tensor(numbers, dtype=torch.float32, device=pixels.device).view(axes) for numbers in (MEAN, STD))
    return ((pixels.float() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


def spread(mask: Tensor, config: Config) -> Tensor:
    """A mask of patches as one of pixels: bool[batch 1 (frames) height width]."""
    time, high, wide = config.patch_size
    wider = mask.repeat_interleave(high, -2).repeat_interleave(wide, -1)
    return (wider if config.is_still else wider.repeat_interleave(time, 1))[:, None]
