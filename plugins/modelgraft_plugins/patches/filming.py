"""The work of patches/frames: frames of films, cut into patches of some frames each."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from modelgraft.plugin import LoadContext, Video
from modelgraft_plugins.patches.preparing import Grid, fitting, in_patches, laid_out

if TYPE_CHECKING:
    from modelgraft_plugins.patches import Frames


def load(config: Frames, _context: LoadContext) -> Callable[[list[Any]], dict[str, Any]]:
    """Make the function from films, or lists of them, to patches and what is known of each film."""

    def prepare(video: list[Any]) -> dict[str, Any]:
        records = video if config.many else [[one] for one in video]
        paces = torch.zeros(len(records), max(map(len, records), default=0))
        for row, record in zip(paces, records, strict=True):
            row[: len(record)] = torch.tensor([pace(film, config) for film in record])
        return {**laid_out([[cut_up(film, config) for film in record] for record in records], config), "paces": paces}

    return prepare


def cut_up(film: Video, config: Frames) -> tuple[torch.Tensor, Grid]:
    """Resize, normalise and cut the frames of one film: float32[patches values], and its grid."""
    frames = [fitting(Image.fromarray(np.asarray(film.frames[place])), config) for place in taken(film, config)]
    frames += [frames[-1]] * (-len(frames) % config.temporal_patch_size)
    return in_patches(torch.stack(frames), config)


def taken(film: Video, config: Frames) -> list[int]:
    """The places of the frames that are taken: spread as `Qwen2VLVideoProcessor.sample_frames` of transformers spreads them."""
    there, depth = len(film.frames), config.temporal_patch_size
    if config.fps is None:
        return list(range(there))
    most = min(config.max_frames, there) // depth * depth
    count = math.floor(min(max(film.seconds * config.fps, config.min_frames), most, there) / depth) * depth
    return torch.arange(0, there, there / count).int().tolist() if count else list(range(there))


def pace(film: Video, config: Frames) -> float:
    """How far a patch stands behind the one before it, on the axis of time."""
    if config.tokens_per_second is None:
        return 1.0
    rate = len(taken(film, config)) / film.seconds if film.seconds else 1.0
    return config.tokens_per_second * config.temporal_patch_size / rate
