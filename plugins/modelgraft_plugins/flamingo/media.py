"""The work of flamingo/media."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from modelgraft.plugin import InputError, LoadContext

if TYPE_CHECKING:
    from modelgraft_plugins.flamingo import Media

Frames = Sequence[Any]  # of a record: float[tokens width] for each frame, or ABSENT


def load(config: Media, context: LoadContext) -> Callable[[Sequence[Frames], Tensor], dict[str, Tensor]]:
    """Make the function from the vectors of frames to those of media."""
    node = context.node.name
    assert config.tokens is not None
    assert config.width is not None
    size = (config.tokens, config.width)

    def run(vectors: Sequence[Frames], lengths: Tensor) -> dict[str, Tensor]:
        _refuse_gaps(node, vectors, lengths, clips=config.clips)
        like = next((frame for record in vectors for frame in record), torch.zeros(0))
        media = like.new_zeros(*lengths.shape, max(1, int(lengths.max())), *size)
        for row, record in enumerate(vectors):
            waiting = iter(record)
            for medium, count in enumerate(lengths[row].tolist()):
                for frame in range(count):
                    media[row, medium, frame] = next(waiting)
        counts = lengths.gt(0).sum(1)
        return {"media": media, "frames": lengths, "counts": counts} if config.clips else {"media": media[:, :, 0], "counts": counts}

    return run


def _refuse_gaps(node: str, vectors: Sequence[Frames], lengths: Tensor, *, clips: bool) -> None:
    """Raise InputError where the eye gave nothing for a frame, for another number of frames than are said, and for clips where none are."""
    for row, (record, counts) in enumerate(zip(vectors, lengths.tolist(), strict=True), 1):
        if len(record) != sum(counts):
            raise InputError(f"{node}: record {row} has {len(record)} frames, and lengths says {sum(counts)}: wire both from one node")
        if lost := [number for number, frame in enumerate(record, 1) if not isinstance(frame, Tensor)]:
            raise InputError(f"{node}: record {row} has {len(record)} frames, and the eye gave nothing for number {lost[0]}")
        if not clips and max(counts, default=0) > 1:
            raise InputError(f"{node}: record {row} has a clip of {max(counts)} frames, and its media are pictures: set clips: true")
