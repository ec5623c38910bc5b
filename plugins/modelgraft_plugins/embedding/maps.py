"""The work of depth/preprocess and thermal/preprocess: maps of measures become squares of one channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from modelgraft.plugin import PICTURE_PIXELS, Depth, InputError, LoadContext, NodeRuntime, Thermal
from modelgraft_plugins.pixels import cropped

if TYPE_CHECKING:
    from modelgraft_plugins.embedding.preparing import Brightness, Disparity

Map = np.ndarray[Any, np.dtype[np.float32]]

GREYS = 255  # steps between black and white of a picture of 8 bits


def load_depth(config: Disparity, _context: LoadContext) -> Measurer:
    """Make the function from depth maps to float32[batch 1 side side]."""
    return Measurer(config)


def load_thermal(config: Brightness, _context: LoadContext) -> Warmer:
    """Make the function from thermal pictures to float32[batch 1 side side]."""
    return Warmer(config)


class Telling:
    """Says what it changed about its records."""

    runtime: NodeRuntime | None = None

    def bind(self, runtime: NodeRuntime) -> None:
        """Take the run that is served: it hears the warnings."""
        self.runtime = runtime

    def say(self, text: str) -> None:
        """Warn the run, if there is one."""
        if self.runtime is not None:
            self.runtime.emit("warning", text=text)


class Measurer(Telling):
    """Distances to disparities."""

    def __init__(self, config: Disparity) -> None:
        self.config = config

    def __call__(self, depth: list[Depth]) -> Tensor:
        """Prepare a batch. Raises InputError for a map without a measure, and for one that is too thin to be enlarged."""
        return torch.from_numpy(np.stack([self._prepared(record)[None] for record in depth]))

    def _prepared(self, depth: Depth) -> Map:
        """One depth map as float32[side side]."""
        config = self.config
        there = np.isfinite(depth.metres)
        if not there.any():
            raise InputError("depth/preprocess: nothing was measured anywhere in the depth map: every value is NaN, or 0 in its file")
        if (nearest := float(depth.metres[there].min())) > config.farthest_m:
            found = f"the nearest distance is {nearest:.4g} m, and {config.farthest_m:g} m is the farthest that counts"
            raise InputError(f'depth/preprocess: {found}: give the unit, {{"file": ..., "unit": "mm"}}, or raise farthest_m')
        focal = depth.focal_px
        if focal is None:
            focal = config.focal_px
            self.say(
                f'the depth map states no focal length; {focal:g} pixels are taken: {{"focal_px": ...}} beside its file says otherwise'
            )
        metres = np.where(there, depth.metres, np.float32("inf")).clip(config.nearest_m, None)
        metres = np.where(there, metres.clip(None, config.farthest_m), metres)
        share = (focal * config.baseline_m / metres).clip(0.0, config.most_px) / config.most_px
        square = _square(Image.fromarray(share.astype(np.float32)), config.side, Image.Resampling.BILINEAR, "depth/preprocess")
        return ((square - config.mean) / config.std).astype(np.float32)


class Warmer(Telling):
    """Heat to grey."""

    def __init__(self, config: Brightness) -> None:
        self.config = config

    def __call__(self, thermal: list[Thermal]) -> Tensor:
        """Prepare a batch. Raises InputError for a picture without a measure, and for one that is too thin to be enlarged."""
        return torch.from_numpy(np.stack([self._prepared(record)[None] for record in thermal]))

    def _prepared(self, thermal: Thermal) -> Map:
        """One thermal picture as float32[side side]."""
        config = self.config
        there = np.isfinite(thermal.values)
        if not there.any():
            raise InputError(
                "thermal/preprocess: nothing was measured anywhere in the thermal picture: every value is NaN, or 0 in its file"
            )
        low, high = 0.0, 1.0
        if thermal.unit != "relative":
            low, high = self._limits(thermal.values[there])
        share = (np.where(there, thermal.values, low) - low) / ((high - low) or 1.0)
        grey = Image.fromarray((share.clip(0.0, 1.0) * GREYS).round().astype(np.uint8))
        square = _square(grey, config.side, Image.Resampling.BICUBIC, "thermal/preprocess") / np.float32(GREYS)
        if config.mean is not None and config.std is not None:
            square = (square - config.mean) / config.std
        return square.astype(np.float32)

    def _limits(self, degrees: Map) -> tuple[float, float]:
        """The degrees that are black and white."""
        low, high = float(degrees.min()), float(degrees.max())
        if self.config.coldest_c is None or self.config.warmest_c is None:
            if low == high:
                self.say(f"the thermal picture has {low:.4g} degrees everywhere: it is black")
            return low, high
        if high < self.config.coldest_c or low > self.config.warmest_c:
            found = (
                f"the thermal picture lies in {low:.4g} to {high:.4g} degrees, and {self.config.coldest_c:g} to {self.config.warmest_c:g}"
            )
            raise InputError(
                f'thermal/preprocess: {found} are told apart: give the unit, {{"file": ..., "unit": "kelvin"}}, or other limits'
            )
        return self.config.coldest_c, self.config.warmest_c


def _square(image: Image.Image, side: int | None, resample: Image.Resampling, name: str) -> Map:
    """The middle of a picture whose shorter side is resized: float32[side side]."""
    assert side is not None, "a graph is solved before it is loaded"
    longest = int(side * max(image.size) / min(image.size))
    if side * longest > PICTURE_PIXELS:
        found = f"a map of {image.width} x {image.height} becomes {side} x {longest} when its shorter side is {side}"
        raise InputError(f"{name}: {found}, more than {PICTURE_PIXELS:,} pixels: crop it first")
    image = image.resize((side, longest) if image.width <= image.height else (longest, side), resample=resample)
    found_middle: Map = cropped(np.asarray(image)[..., None], side, side, even=True)[..., 0].astype(np.float32)
    return found_middle
