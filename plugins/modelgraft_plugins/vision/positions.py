"""Tables of places for pictures of another size than a tower was trained at: the three ways of published code, by name.

    official  bilinear, the corners stay in place: `scipy.ndimage.zoom(table, order=1)` in the Google code
    hf        bicubic, as `interpolate_pos_encoding` of transformers
    timm      bicubic, smoothed where the grid shrinks, as `resample_abs_pos_embed` of timm

On the grid that it was trained at, each gives the table itself.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from modelgraft_plugins.vision import Encoder

WAYS: dict[str, dict[str, Any]] = {
    "official": {"mode": "bilinear", "align_corners": True},
    "hf": {"mode": "bicubic", "align_corners": False},
    "timm": {"mode": "bicubic", "align_corners": False, "antialias": True},
}


def resampled(table: Tensor, grid: tuple[int, int], *, stored: tuple[int, int], lead: int, way: str) -> Tensor:
    """Bring a table of places to another grid.

    table    float[1 lead+rows*columns d], row by row;  stored  its (rows, columns)
    grid     the wanted (rows, columns)
    lead     rows of tokens that have no place in the picture, such as a class token; they stay as they are
    returns  float[1 lead+rows*columns d] of the wanted grid
    """
    width = table.shape[-1]
    places = table[:, lead:].reshape(1, *stored, width).permute(0, 3, 1, 2)
    there = functional.interpolate(places.float(), size=grid, **WAYS[way]).to(table.dtype)  # half precision has no such filter everywhere
    return torch.cat([table[:, :lead], there.flatten(2).transpose(1, 2)], 1)


def replace_in(embeddings: Any, config: Encoder) -> None:
    """Let a tower of transformers ask for its places here: in the way and with the grid of the config, which need not be square.

    Raises ValueError for a tower that has no table of places to interpolate.
    """
    if not hasattr(embeddings, "interpolate_pos_encoding"):
        raise ValueError(f"positions: {config.positions} is not known of the family {config.family}: it has no table of places")
    embeddings.interpolate_pos_encoding = partial(_places, embeddings, config)


def _places(embeddings: Any, config: Encoder, tokens: Tensor, height: int, width: int) -> Tensor:
    """What stands in the place of the method of transformers; `tokens` float[batch tokens d], sides in pixels."""
    table = _table(embeddings).to(tokens.dtype)
    grid = height // config.patch_size, width // config.patch_size
    if grid == config.grid and not torch.compiler.is_exporting():  # an exported graph takes other sizes too
        return table
    return resampled(table, grid, stored=config.grid, lead=config.lead, way=config.positions)


def _table(embeddings: Any) -> Tensor:
    table: Any = getattr(embeddings, "position_embeddings", None)
    if table is None:
        table = embeddings.position_embedding
    weight: Tensor = table.weight[None] if isinstance(table, torch.nn.Embedding) else table
    return weight
