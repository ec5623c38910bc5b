"""Sounds of which no two frames are equal."""

from __future__ import annotations

import numpy as np

from modelgraft import Audio


def tone(seconds: float, *, rate: int = 16_000, channels: int = 1, hertz: float = 440.0) -> Audio:
    """A tone that fades."""
    time = np.arange(round(seconds * rate)) / rate
    wave = (np.sin(2 * np.pi * hertz * time) * np.exp(-time)).astype(np.float32)
    return Audio(np.stack([wave * (1 - 0.25 * channel) for channel in range(channels)]), rate)
