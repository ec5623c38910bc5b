"""The work of pali/memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from modelgraft_plugins.pali import MemoryConfig


class Memory(nn.Module):
    """text float[batch m width], text_mask bool[batch m], image float[batch n width] to memory float[batch m+n width] and its mask."""

    def __init__(self, _config: MemoryConfig) -> None:
        super().__init__()

    def forward(self, text: Tensor, text_mask: Tensor | None, image: Tensor) -> dict[str, Tensor]:
        """Join them; of a picture everything is there."""
        return {"memory": torch.cat([text, image], 1), "mask": torch.cat([there(text_mask, text), there(None, image)], 1)}


def there(mask: Tensor | None, rows: Tensor) -> Tensor:
    """bool[batch tokens]: the mask, or everywhere."""
    return torch.ones(rows.shape[:2], dtype=torch.bool, device=rows.device) if mask is None else mask
