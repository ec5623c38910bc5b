"""Pixels as films."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from modelgraft.plugin import LoadContext, Video


def load(config: Any, context: LoadContext) -> Callable[[Tensor], list[Video]]:  # noqa: ARG001 as load is called
    """Give the function that makes films of float[batch 3 frames height width]."""
    return lambda pixels: films(pixels, rate_hz=config.rate_hz)


def films(pixels: Tensor, *, rate_hz: float) -> list[Video]:
    """(x / 2 + 1/2) between 0 and 1, times 255, rounded. Source: diffusers, VideoProcessor.postprocess_video."""
    between = (pixels.to(torch.float32) / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 4, 1)
    return [Video(record, rate_hz) for record in (between * 255).round().to(torch.uint8).contiguous().cpu().numpy()]
