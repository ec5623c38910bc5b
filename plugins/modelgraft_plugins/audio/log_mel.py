"""Log-mel features as Whisper takes them, by numpy: float64 within, float32 in the end.

transformers computes them by torch where that is there, in float32, and by numpy in float64 where it is not: these are the latter's.
Sources: arXiv 2212.04356, section 2.2; the mel scale and its triangles are those of Slaney's Auditory Toolbox (1998).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from modelgraft_plugins.audio.features import Hearing

Samples = Any  # float32[samples]
Features = Any  # float32[mels frames]

HIGHEST_HZ = 8000.0  # above which no band hears, whatever the rate: as the models were trained
LINEAR_HZ, LINEAR_MELS = 1000.0, 15.0  # where the scale stops being linear, 3 mels for 200 Hz
STEP = np.log(6.4) / 27.0  # and how fast its logarithm grows from there
SILENT = 1e-10  # power that a band has at least
RANGE = 8.0  # what lies further below the loudest, in powers of ten, is as loud as that
PIECE = 3000  # frames that are made at once: half a minute, 20 MB


class LogMel:
    """Makes the features of samples."""

    def __init__(self, config: Hearing) -> None:
        self.window_length, self.hop = config.window_length, config.hop_length
        self.window = np.hanning(self.window_length + 1)[:-1]
        self.bands = bands(1 + self.window_length // 2, config.mels, config.sample_rate_hz)

    def __call__(self, samples: Samples) -> Features:
        """float32[samples] -> float32[mels frames], a frame for each hop; what stands behind the last whole hop is left out."""
        half = self.window_length // 2
        whole = np.pad(samples, (half, half), mode="reflect").astype(np.float64)
        frames = np.lib.stride_tricks.sliding_window_view(whole, self.window_length)[:: self.hop][:-1]
        powers = np.concatenate([self._powers(frames[start : start + PIECE]) for start in range(0, len(frames), PIECE)], axis=1)
        found = np.log10(np.maximum(SILENT, powers)).astype(np.float32)
        found = np.maximum(found, found.max() - np.float32(RANGE))
        return (found + np.float32(4.0)) / np.float32(4.0)

    def _powers(self, frames: NDArray[np.float64]) -> NDArray[np.float64]:
        """float64[mels frames] of float64[frames window]."""
        spectrum = np.fft.rfft(frames * self.window).astype(np.complex64)
        powers: NDArray[np.float64] = self.bands @ (np.abs(spectrum, dtype=np.float64) ** 2.0).T
        return powers


def bands(bins: int, mels: int, rate_hz: int) -> NDArray[np.float64]:
    """How much of each bin of a spectrum a band hears, float64[mels bins]: triangles over the mel scale, each of the area of the others."""
    edges = _hertz(np.linspace(0.0, _mels(HIGHEST_HZ), mels + 2))
    away = edges[:, None] - np.linspace(0, rate_hz // 2, bins)  # [edges bins]
    widths = np.diff(edges)[:, None]
    heights = np.maximum(0.0, np.minimum(-away[:-2] / widths[:-1], away[2:] / widths[1:]))
    found: NDArray[np.float64] = heights * (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return found


def _mels(hertz: float) -> float:
    """A frequency above LINEAR_HZ on the mel scale."""
    return float(LINEAR_MELS + np.log(hertz / LINEAR_HZ) / STEP)


def _hertz(mels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Places of the mel scale as frequencies."""
    curved = LINEAR_HZ * np.exp(STEP * (mels - LINEAR_MELS))
    return np.where(mels >= LINEAR_MELS, curved, 200.0 * mels / 3.0)
