"""Where the tokens of a prompt stand for a language model that counts more than one axis, and which of them see each other.

A token of a text stands at one number. A token of a picture stands at a frame, a row and a column, all counted on from where the text
before the picture ended, and the text goes on behind the longer side of the picture: M-RoPE, Wang et al. 2024 (arXiv 2409.12191, section
2.1), as `get_rope_index` of transformers 5.23 counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modelgraft.plugin import InputError

AXES = 3  # frames, rows, columns


@dataclass(frozen=True, slots=True)
class Medium:
    """One medium among the words of a prompt.

    places  where its embeddings go, in order
    grid    how many frames, rows and columns they are; None: they follow each other as words do
    pace    how far a frame stands behind the one before it; places are whole numbers, what is over is cut off
    """

    places: range
    grid: tuple[int, int, int] | None = None
    pace: float = 1


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """Where the tokens of one prompt stand.

    axes    int64[tokens 3]: frame, row and column of each
    blocks  int64[tokens]: the number of the medium that a token is of, -1 for words
    """

    axes: Tensor
    blocks: Tensor

    @property
    def behind(self) -> int:
        """Where the first token behind the prompt stands, on every axis."""
        return int(self.axes.max()) + 1 if len(self.axes) else 0

    def further(self, count: int) -> Tensor:
        """int64[count 3]: the axes of the prompt and of words behind it, or of its first tokens."""
        more = count - len(self.axes)
        if more <= 0:
            return self.axes[:count]
        words = (self.behind + torch.arange(more))[:, None].expand(more, AXES)
        return torch.cat([self.axes, words])


def stand(count: int, media: Sequence[Medium], *, node: str) -> Standing:
    """Where so many tokens stand, of which those at some places are media.

    Raises InputError for a grid that is not the size of its medium, or whose embeddings do not follow each other.
    """
    axes, blocks = torch.empty(count, AXES, dtype=torch.int64), torch.full((count,), -1, dtype=torch.int64)
    place = position = 0
    for number, medium in enumerate(media):
        blocks[medium.places.start : medium.places.stop] = number
        if medium.grid is None:
            continue
        frames, rows, columns = medium.grid
        if frames * rows * columns != len(medium.places):
            is_large = f"{frames} x {rows} x {columns}, which are {frames * rows * columns:,}"
            raise InputError(f"{node}: medium {number + 1} has {len(medium.places):,} embeddings, and its grid is {is_large}")
        words = medium.places.start - place
        axes[place : medium.places.start] = (position + torch.arange(words))[:, None]
        position += words
        steps = [(torch.arange(frames) * medium.pace).long(), torch.arange(rows), torch.arange(columns)]
        grid = torch.stack(torch.meshgrid(*steps, indexing="ij"), -1).reshape(-1, AXES)
        axes[medium.places.start : medium.places.stop] = position + grid
        place, position = medium.places.stop, position + max(rows, columns)
    axes[place:] = (position + torch.arange(count - place))[:, None]
    return Standing(axes, blocks)


def laid(standings: Sequence[Standing], capacity: int, *, offsets: Sequence[int]) -> Tensor:
    """int64[rows capacity 3]: where the tokens of each row stand, those behind the prompts too; 0 before its offset."""
    rows = []
    for standing, offset in zip(standings, offsets, strict=True):
        told = standing.further(capacity - offset)
        rows.append(torch.cat([told.new_zeros(offset, AXES), told]))
    return torch.stack(rows)


def alike(one: Sequence[Standing] | None, other: Sequence[Standing] | None, tokens: int) -> bool:
    """Whether the first tokens of a prompt stand at the same places under both, each of one row; None: one behind the other."""
    if one is None and other is None:
        return True
    plain = torch.arange(tokens)[:, None].expand(tokens, AXES)
    found = [plain if given is None else given[0].further(tokens) for given in (one, other)]
    return torch.equal(found[0], found[1])
