"""Where the patches of several pictures stand: of each its picture, frame, row and column, by the grids of the pictures.

All of it is arithmetic on tensors, so that an exported graph takes any pictures.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Places:
    """Of each patch, int64[batch patches]:

    medium, frame, row, column    from 0; of what fills a record up, `medium` is the number of pictures
    there                         bool: it is a patch of a picture
    rows, columns                 how many its picture has; 1 of what fills a record up
    """

    medium: Tensor
    frame: Tensor
    row: Tensor
    column: Tensor
    there: Tensor
    rows: Tensor
    columns: Tensor

    def alike(self, side: int | None = None) -> Tensor:
        """A number for each patch, which is that of those it sees: of its frame of its picture, or of its window of `side` patches.

        What fills records up has the number of all that does in its record. Numbers of different records differ.
        """
        found = torch.arange(self.medium.shape[0], device=self.medium.device)[:, None].expand_as(self.medium)
        windows = () if side is None else (self.row // side, self.column // side)
        for number in (self.medium, *(torch.where(self.there, one, 0) for one in (self.frame, *windows))):
            found = found * (number.max() + 1) + number
        return found


def locate(grids: Tensor, patches: int, *, group: int) -> Places:
    """Find the place of each patch.

    grids    int64[batch media 3]: frames, rows and columns of patches of each picture; 0 where a record has fewer
    patches  how many each record has, what fills it up among them
    group    side of the square groups that stand together; 1: patches stand row by row
    """
    ends = grids.prod(-1).cumsum(-1)  # [batch media]
    index = torch.arange(patches, device=grids.device)[None]  # [1 patches]
    medium = (index[:, :, None] >= ends[:, None]).sum(-1)  # [batch patches]
    whole = torch.cat([grids, torch.ones_like(grids[:, :1])], 1)  # one more, of what fills a record up
    begins = torch.cat([torch.zeros_like(ends[:, :1]), ends], 1)
    own = torch.gather(whole, 1, medium[..., None].expand(-1, -1, 3)).clamp(min=1)
    within = index - torch.gather(begins, 1, medium)
    frame, rest = within // (own[..., 1] * own[..., 2]), within % (own[..., 1] * own[..., 2])
    across = (own[..., 2] // group).clamp(min=1)
    block, inner = rest // group**2, rest % group**2
    row, column = block // across * group + inner // group, block % across * group + inner % group
    return Places(medium, frame, row, column, medium < grids.shape[1], own[..., 1], own[..., 2])


def drawn(table: Tensor, places: Places) -> Tensor:
    """What is learned of a square grid, float[side*side width], drawn over each picture: float[batch patches width].

    Corners of the grid fall on corners of the picture, and between its points it is linear: as transformers 5.23 does it,
    `get_vision_interpolation_indices_and_weights` with `align_corners`.
    """
    side = round(len(table) ** 0.5)
    found = torch.zeros((), dtype=table.dtype, device=table.device)
    for row, above in _between(places.row, places.rows, side):
        for column, left in _between(places.column, places.columns, side):
            found = found + table[row * side + column] * (above * left)[..., None].to(table.dtype)
    return found


def _between(number: Tensor, count: Tensor, side: int) -> list[tuple[Tensor, Tensor]]:
    """The two of `side` points that a place of so many lies between, and the weight of each; what fills a record up lies anywhere."""
    place = (number.float() * (side - 1) / (count - 1).clamp(min=1)).clamp(max=side - 1)
    first = place.floor()
    rest = place - first
    return [(first.long(), 1 - rest), ((first.long() + 1).clamp(max=side - 1), rest)]
