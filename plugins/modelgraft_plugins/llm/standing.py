"""Where the tokens of a prompt stand for a language model that counts more than one axis, and which of them see each other.

A token of a text stands at one number. A token of a picture stands at a frame, a row and a column, all counted on from where the text
before the picture ended, and the text goes on behind the longer side of the picture: M-RoPE, Wang et al. 2024 (arXiv 2409.12191, section
2.1), as `get_rope_index` of transformers 5.23 counts. All of it is computed by torch, which is imported for prompts that ask for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelgraft.plugin import InputError
from modelgraft_plugins.llm.ragged import Beside

if TYPE_CHECKING:
    from torch import Tensor

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
class Deep:
    """Vectors of inner layers of an eye, which first layers of a decoder hear (DeepStack, Meng et al. 2024, arXiv 2406.04334).

    places   int64[vectors]: the tokens that they are added to, in order
    vectors  float[layers vectors width]: what is added behind each of the first layers
    """

    places: Tensor
    vectors: Tensor

    def within(self, start: int, stop: int) -> Deep:
        """Those of tokens from one place up to another, which count from there."""
        there = (self.places >= start) & (self.places < stop)
        return Deep(self.places[there] - start, self.vectors[:, there])


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """Where the tokens of one prompt stand.

    axes    int64[tokens 3]: frame, row and column of each
    blocks  int64[tokens]: the number of the medium that a token is of, -1 for words
    deep    what is added to some of them behind the first layers; None: nothing
    """

    axes: Tensor
    blocks: Tensor
    deep: Deep | None = None

    @property
    def behind(self) -> int:
        """Where the first token behind the prompt stands, on every axis."""
        return int(self.axes.max()) + 1 if len(self.axes) else 0

    def further(self, count: int) -> Tensor:
        """int64[count 3]: the axes of the prompt and of words behind it, or of its first tokens."""
        more = count - len(self.axes)
        if more <= 0:
            return self.axes[:count]
        import torch

        words = (self.behind + torch.arange(more))[:, None].expand(more, AXES)
        return torch.cat([self.axes, words])


def stand(count: int, media: Sequence[Medium], *, node: str) -> Standing:
    """Where so many tokens stand, of which those at some places are media.

    Raises InputError for a grid that is not the size of its medium, or whose embeddings do not follow each other.
    """
    import torch

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
    import torch

    rows = []
    for standing, offset in zip(standings, offsets, strict=True):
        told = standing.further(capacity - offset)
        rows.append(torch.cat([told.new_zeros(offset, AXES), told]))
    return torch.stack(rows)


def heard(standings: Sequence[Standing] | None, count: int, *, offsets: Sequence[int]) -> tuple[Tensor, Tensor] | None:
    """What is added to the tokens of a batch, each row of which begins so far into it: None for nothing.

    bool[rows count]: the tokens that something is added to;  float[layers vectors width]: what, of row after row
    """
    if standings is None or all(standing.deep is None for standing in standings):
        return None
    import torch

    found, there = list[torch.Tensor](), torch.zeros(len(standings), count, dtype=torch.bool)
    for row, standing, offset in zip(there, standings, offsets, strict=True):
        if standing.deep is not None:
            own = standing.deep.within(max(-offset, 0), count - offset)
            row[own.places.cpu() + max(offset, 0)] = True
            found.append(own.vectors)
    return there, torch.cat(found, 1)


def laid_deep(standings: Sequence[Standing] | None, target: Tensor, *, offsets: Sequence[int]) -> Tensor:
    """float[rows count layers width], zeros, filled with what is added to each token; offsets: see `heard`."""
    found = heard(standings, target.shape[1], offsets=offsets)
    if found is not None:
        there, vectors = found
        target[there.to(target.device)] = vectors.transpose(0, 1).to(target)
    return target


def alike(one: Sequence[Standing] | None, other: Sequence[Standing] | None, tokens: int) -> bool:
    """Whether the first tokens of a prompt stand at the same places under both, each of one row, and hear the same.

    None: one behind the other, hearing nothing.
    """
    if one is None and other is None:
        return True
    import torch

    added = [heard(given, tokens, offsets=[0]) for given in (one, other)]
    added = [None if told is None or not told[0].any() else told for told in added]
    if (added[0] is None) != (added[1] is None):
        return False
    if added[0] is not None and added[1] is not None and not all(map(torch.equal, added[0], added[1])):
        return False
    plain = torch.arange(tokens)[:, None].expand(tokens, AXES)
    found = [plain if given is None else given[0].further(tokens) for given in (one, other)]
    return torch.equal(found[0], found[1])


def shown(places: Sequence[int], sizes: Sequence[int], said: Sequence[Beside | None], *, node: str) -> tuple[Medium, ...]:
    """The media of a prompt, whose embeddings are so many each: those with sides where they stand, others piece by piece.

    Raises InputError for a medium with sides that stands in several pieces.
    """
    if all(told is None or told.grid is None for told in said):
        return tuple(Medium(piece) for piece in _runs(places))
    found, start = list[Medium](), 0
    for number, (size, told) in enumerate(zip(sizes, said, strict=True), 1):
        pieces, start = _runs(places[start : start + size]), start + size
        if told is None or told.grid is None:
            found += [Medium(piece) for piece in pieces]
        elif len(pieces) == 1:
            found.append(Medium(pieces[0], told.grid, told.pace))
        else:
            raise InputError(
                f"{node}: medium {number} has a grid, and stands in {len(pieces)} pieces: wanted one, without words between them"
            )
    return tuple(found)


def _runs(places: Sequence[int]) -> list[range]:
    """Places that follow each other, as ranges."""
    found: list[range] = []
    for place in places:
        if found and found[-1].stop == place:
            found[-1] = range(found[-1].start, place + 1)
        else:
            found.append(range(place, place + 1))
    return found
