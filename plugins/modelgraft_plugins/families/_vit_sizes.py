"""The published sizes of vision transformers, and what files say of theirs only by their shapes.

Sources: arXiv 2010.11929, 2106.04560 (g, G), 2209.06794 (e); `decode_variant` of big_vision; the registry of timm.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Variant:
    """Widths of the tokens and of the feed-forward layers, layers, heads."""

    width: int
    inner: int
    layers: int
    heads: int


VARIANTS: Mapping[str, Variant] = {
    "tiny": Variant(192, 768, 12, 3),
    "small": Variant(384, 1536, 12, 6),
    "base": Variant(768, 3072, 12, 12),
    "large": Variant(1024, 4096, 24, 16),
    "huge": Variant(1280, 5120, 32, 16),
    "giant": Variant(1408, 6144, 40, 16),
    "gigantic": Variant(1664, 8192, 48, 16),
    "enormous": Variant(1792, 15360, 56, 16),
}
HEADS: Mapping[int, int] = {variant.width: variant.heads for variant in VARIANTS.values()}  # width -> heads of who has it
NAMED = re.compile(r"vit_(?P<size>[a-z]+)_patch(?P<patch>\d+)(?:_[a-z0-9]+)*?_(?P<side>\d{3})(?:_|$|\.)")  # as timm names them


def grid_of(places: int, stated: Any, patch: int) -> tuple[int, int]:
    """(rows, columns) of a table of places, class token aside: those of the stated size, else a square.

    stated  the side of the pictures in pixels, or (height, width), or None

    Raises ValueError where neither gives so many.
    """
    if stated is None:
        side = math.isqrt(places)
        if side * side != places:
            raise ValueError(f"its table has {places} places, which are no square: state the size of its pictures as [height, width]")
        return side, side
    height, width = (stated, stated) if isinstance(stated, int) else tuple(stated)[-2:]
    if (height // patch) * (width // patch) != places:
        raise ValueError(
            f"pictures of {height} x {width} have {(height // patch) * (width // patch)} patches of {patch}, its table {places}"
        )
    return height // patch, width // patch


def size_of(grid: tuple[int, int], patch: int) -> int | list[int]:
    """The size of the pictures of a grid, as a config states it."""
    height, width = (side * patch for side in grid)
    return height if height == width else [height, width]
