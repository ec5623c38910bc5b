"""The shape of EfficientNet-lite as numbers, without torch.

Source: Tan and Le 2019, arXiv 1905.11946, table 1 and section 3.3; the lite variants of the same authors keep the widths
of stem and head and the depths of the first and last stage, and have no squeeze-and-excitation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

STEM_WIDTH, HEAD_WIDTH = 32, 1280
WIDTH_STEP = 8  # widths are multiples of this


@dataclass(frozen=True, slots=True)
class Variant:
    """How much wider and deeper than lite0, and the side of its pictures in pixels."""

    width: float
    depth: float
    image_size: int


@dataclass(frozen=True, slots=True)
class Block:
    """One inverted bottleneck: `expansion` times as wide inside as `in_width`; `stride` 2 halves height and width."""

    kernel: int
    stride: int
    expansion: int
    in_width: int
    out_width: int


VARIANTS: Mapping[str, Variant] = {
    "lite0": Variant(1.0, 1.0, 224),
    "lite1": Variant(1.0, 1.1, 240),
    "lite2": Variant(1.1, 1.2, 260),
    "lite3": Variant(1.2, 1.4, 280),
    "lite4": Variant(1.4, 1.8, 300),
}
STAGES = (  # repeats, kernel, stride, expansion, width
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def blocks(variant: str) -> tuple[Block, ...]:
    """The blocks of a variant from the stem to the head."""
    scale, width, chain = VARIANTS[variant], STEM_WIDTH, list[Block]()
    for index, (repeats, kernel, stride, expansion, stage_width) in enumerate(STAGES):
        is_end = index in (0, len(STAGES) - 1)
        out_width = scaled_width(stage_width, scale.width)
        for repeat in range(repeats if is_end else math.ceil(scale.depth * repeats)):
            chain.append(Block(kernel, stride if repeat == 0 else 1, expansion, width, out_width))
            width = out_width
    return tuple(chain)


def scaled_width(width: int, factor: float) -> int:
    """A width times a factor, rounded to the nearest multiple of WIDTH_STEP, but not down by more than a tenth."""
    wanted = width * factor
    rounded = max(WIDTH_STEP, int(wanted + WIDTH_STEP / 2) // WIDTH_STEP * WIDTH_STEP)
    return rounded + WIDTH_STEP if rounded < 0.9 * wanted else rounded
