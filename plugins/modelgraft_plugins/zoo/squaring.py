"""Pictures in a square of one colour."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from modelgraft.plugin import LoadContext
    from modelgraft_plugins.zoo import Square

Picture = Image.Image


def load(config: Square, _context: LoadContext) -> Callable[[list[Picture]], list[Picture]]:
    """Give what puts each picture of a batch into a square."""
    return lambda image: [squared(one, config.colour) for one in image]


def squared(picture: Picture, colour: tuple[int, int, int]) -> Picture:
    """The picture in the middle of a square; one that is a square already is given as it is."""
    width, height = picture.size
    if width == height:
        return picture
    side = max(width, height)
    whole = Image.new("RGB", (side, side), colour)
    whole.paste(picture.convert("RGB"), ((side - width) // 2, (side - height) // 2))
    return whole
