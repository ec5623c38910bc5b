"""The work of video/frames: which frames, and each made ready.

Clips are those of PyTorchVideo's ConstantClipsPerVideoSampler, frames those of its UniformTemporalSubsample, three crops its uniform_crop.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from modelgraft.plugin import InputError, LoadContext, NodeRuntime, Video
from modelgraft_plugins.pixels import cropped, normalised, refuse_thin, resized

if TYPE_CHECKING:
    from modelgraft_plugins.video import Frames

INSTANT_S = 1e-6  # times are sums of fractions: what is nearer than that is at one time


def load(config: Frames, context: LoadContext) -> Cutter:
    """Make the function from films to float32[batch 3 frames height width], or float32[batch clips 3 frames height width]."""
    if config.do_normalize and None in (config.image_mean, config.image_std):
        raise InputError(f"{context.node.name}: do_normalize needs image_mean and image_std; give both, or set do_normalize: false")
    return Cutter(config.settled())


class Cutter:
    """Takes frames, and says where a film is too short for what is wanted of it."""

    def __init__(self, config: Frames) -> None:
        self.config = config
        self.runtime: NodeRuntime | None = None

    def bind(self, runtime: NodeRuntime) -> None:
        """Take the run that is served: it hears the warnings."""
        self.runtime = runtime

    def __call__(self, video: list[Video]) -> Tensor:
        """Prepare a batch. Raises InputError for a film that ends before `start_s`, and for films that do not come to one size."""
        films = [self._prepared(film) for film in video]
        sizes = sorted({tuple(film.shape[-2:]) for film in films})
        if len(sizes) > 1:
            listed = ", ".join(f"{width}x{height}" for height, width in sizes)
            raise InputError(
                f"films of one batch must have one size, and these have {listed} after preparing: crop them, or give one at a time"
            )
        return torch.stack(films)

    def _prepared(self, film: Video) -> Tensor:
        """One film: float32[clips 3 frames height width], without the axis where one clip is wanted."""
        chosen = self._chosen(film)
        places = sorted({place for clip in chosen for place in clip})
        row = {place: index for index, place in enumerate(places)}
        views = _views(film.frames[places], self.config)  # one for each crop, float32[places 3 height width]
        clips = [view[[row[place] for place in clip]].movedim(0, 1) for clip in chosen for view in views]
        return clips[0] if self.config.clips is None else torch.stack(clips)

    def _chosen(self, film: Video) -> list[list[int]]:
        """The places of the frames of each window."""
        config = self.config
        times = np.asarray(film.times_s) - float(np.asarray(film.times_s)[0])
        whole = max(film.seconds, float(times[-1]) + INSTANT_S)
        end = whole if config.end_s is None else min(config.end_s, whole)
        if config.start_s >= end:
            raise InputError(f"video/frames: start_s is {config.start_s:g}, and the film lasts {whole:.3g} s")
        span = end - config.start_s
        wanted = config.window_s or span
        if wanted > span + INSTANT_S:
            self._say(f"the film lasts {span:.3g} s and a clip {wanted:.3g} s: each clip is all of it")
        step = max(span - wanted, 0.0) / max((config.windows or 1) - 1, 1)
        begins = [config.start_s + index * step for index in range(config.windows or 1)]
        clips = [_within(times, begin, min(begin + wanted, end)) for begin in begins]
        if min(map(len, clips)) < config.frames:
            self._say(f"{config.frames} frames are taken of a clip of {min(map(len, clips))}: some are there twice")
        return [_spread(clip, config.frames) for clip in clips]

    def _say(self, text: str) -> None:
        if self.runtime is not None:
            self.runtime.emit("warning", text=text)


def _within(times: np.ndarray[Any, Any], begin: float, end: float) -> list[int]:
    """Places of the frames that begin within a time; where none does, the one that is still shown."""
    inside = np.flatnonzero((times >= begin - INSTANT_S) & (times < end - INSTANT_S))
    if len(inside):
        return [int(place) for place in inside]
    return [max(int(np.searchsorted(times, begin, side="right")) - 1, 0)]


def _spread(places: list[int], count: int) -> list[int]:
    """So many of them, evenly spread; the distances are cut to whole places in float32, as they are where models are trained."""
    return [places[index] for index in torch.linspace(0, len(places) - 1, count).clamp(0, len(places) - 1).long().tolist()]


def _views(frames: np.ndarray[Any, Any], config: Frames) -> list[Tensor]:
    """uint8[places height width 3] as float32[places 3 height width], once for each crop."""
    if config.scaling == "floats":
        return [view.contiguous() for view in _crops_of(_scaled(frames, config), config)]
    whole = np.stack([resized(Image.fromarray(frame), config, name="video/frames") for frame in frames])
    if config.crops == 1:
        shown = whole
        if config.do_center_crop and config.crop_size:
            shown = np.stack(
                [
                    cropped(frame, config.crop_size["height"], config.crop_size["width"], even=config.crop_middle == "even")
                    for frame in whole
                ]
            )
        return [torch.from_numpy(normalised(shown, config))]
    return [view.contiguous() for view in _crops_of(torch.from_numpy(normalised(whole, config)), config)]


def _scaled(frames: np.ndarray[Any, Any], config: Frames) -> Tensor:
    """Resized as numbers: float32[places 3 height width], normalised."""
    refuse_thin(Image.fromarray(frames[0]), config)
    values = (frames.astype(np.float64) * config.rescale_factor).astype(np.float32)
    pixels = torch.from_numpy(np.ascontiguousarray(values.transpose(0, 3, 1, 2)))
    pixels = functional.interpolate(pixels, size=_sides(pixels.shape[-2], pixels.shape[-1], config), mode="bilinear", align_corners=False)
    if config.do_normalize:
        mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (config.image_mean, config.image_std))
        pixels = (pixels - mean) / std
    return pixels


def _sides(height: int, width: int, config: Frames) -> tuple[int, int]:
    """Height and width to resize to; the longer side is cut to whole pixels."""
    edge = config.size.get("shortest_edge")
    if edge is None:
        return config.size["height"], config.size["width"]
    if width < height:
        return math.floor(height / width * edge), edge
    return edge, math.floor(width / height * edge)


def _crops_of(pixels: Tensor, config: Frames) -> list[Tensor]:
    """The middle, or both ends of the longer side and the middle between them. Raises InputError where a crop does not fit."""
    if not (config.do_center_crop and config.crop_size):
        return [pixels]
    across, down = config.crop_size["width"], config.crop_size["height"]
    height, width = pixels.shape[-2:]
    if down > height or across > width:
        raise InputError(f"video/frames: a crop of {across} x {down} does not fit into frames of {width} x {height}: enlarge `size`")
    top, left = math.ceil((height - down) / 2), math.ceil((width - across) / 2)
    corners = [(top, left)]
    if config.crops == 3:
        ends = [(0, left), (height - down, left)] if height > width else [(top, 0), (top, width - across)]
        corners = [ends[0], (top, left), ends[1]]
    return [pixels[..., y : y + down, x : x + across] for y, x in corners]
