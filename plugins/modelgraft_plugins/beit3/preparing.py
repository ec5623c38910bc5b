"""The work of beit3/preprocess."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from modelgraft.plugin import InputError, LoadContext
from modelgraft_plugins.pixels import prepared

if TYPE_CHECKING:
    from PIL.Image import Image

    from modelgraft_plugins.beit3.pictures import Preprocess


def load(config: Preprocess, _context: LoadContext) -> Callable[[list[Image]], torch.Tensor]:
    """Make the function from pictures to float32[batch 3 height width]."""

    def prepare(images: list[Image]) -> torch.Tensor:
        pixels = [prepared(image, config, name="beit3/preprocess") for image in images]
        if len({picture.shape for picture in pixels}) > 1:
            raise InputError("beit3/preprocess: pictures of one batch have several sizes after preparing: set size to a height and a width")
        return torch.from_numpy(np.stack(pixels))

    return prepare
