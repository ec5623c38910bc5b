"""Pixels as pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from modelgraft.plugin import LoadContext


def load(config: Any, context: LoadContext) -> Callable[[Tensor], list[Image.Image]]:  # noqa: ARG001 it has no settings
    """Give the function that makes pictures of float[batch 3 height width]."""
    return _pictures


def _pictures(pixels: Tensor) -> list[Image.Image]:
    """(x / 2 + 1/2) between 0 and 1, times 255, rounded. Source: diffusers, VaeImageProcessor.postprocess."""
    between = (pixels.to(torch.float32) / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    return [Image.fromarray(record) for record in (between * 255).round().to(torch.uint8).cpu().numpy()]
