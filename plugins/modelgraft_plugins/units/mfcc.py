"""Mel-frequency cepstra as Kaldi computes them, with their derivatives: the features whose clusters HuBERT learns from first.

Source: compute-mfcc-feats of Kaldi with its defaults and without dither, as `torchaudio.compliance.kaldi.mfcc` has it; derivatives
as `torchaudio.functional.compute_deltas`. All is computed in float64 and given as float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from transformers.audio_utils import mel_filter_bank

from modelgraft.plugin import InputError, LoadContext

if TYPE_CHECKING:
    from collections.abc import Callable

    from modelgraft_plugins.units import Mfcc

Array = np.ndarray[Any, np.dtype[np.float64]]

PREEMPHASIS = 0.97  # each sample less so much of the one before it
POVEY = 0.85  # the exponent that makes Kaldi's own window of a Hann window
LOWEST_HZ = 20.0  # below are no bands; above they end at half of the rate
LIFTER = 22.0  # of the cepstra: high ones are raised
SMALLEST = float(np.finfo(np.float32).eps)  # energies below it count as it, so that silence has a logarithm
ENERGY_FLOOR = 1.0  # the least energy of a whole frame
REACH = 2  # frames to each side that a derivative looks at


def load(config: Mfcc, _context: LoadContext) -> Callable[[Tensor, Tensor | None], dict[str, Tensor]]:
    """Make the function from samples float[batch samples] and where there are some to features and where there are some."""

    def listen(samples: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        sounds = samples.detach().cpu().double().numpy()
        counts = [sounds.shape[1]] * len(sounds) if mask is None else mask.sum(1).tolist()
        rows = [_features(sound[:count], config) for sound, count in zip(sounds, counts, strict=True)]
        features = torch.zeros(len(rows), max(map(len, rows)), config.width)
        there = torch.zeros(features.shape[:2], dtype=torch.bool)
        for index, row in enumerate(rows):
            features[index, : len(row)] = torch.from_numpy(row.astype(np.float32))
            there[index, : len(row)] = True
        return {"features": features.to(samples.device), "mask": there.to(samples.device)}

    return listen


def _features(sound: Array, config: Mfcc) -> Array:
    """float64[samples] -> float64[frames width]: cepstra, then their derivatives, each behind what it is one of.

    Raises InputError for a sound that is shorter than one frame.
    """
    if len(sound) < config.window:
        short = f"the sound has {len(sound):,} samples at {config.sample_rate_hz:,} Hz"
        raise InputError(f"units/mfcc: {short}, and one frame looks at {config.window:,} ({config.window_ms} ms): give a longer one")
    found = [cepstra(sound, config)]
    for _ in range(config.derivatives):
        found.append(derivative(found[-1]))
    return np.concatenate(found, axis=1)


def cepstra(sound: Array, config: Mfcc) -> Array:
    """float64[samples] -> float64[frames coefficients]."""
    frames = np.lib.stride_tricks.sliding_window_view(sound, config.window)[:: config.hop]
    frames = frames - frames.mean(1, keepdims=True)  # each without its own offset
    energy = np.log(np.maximum((frames**2).sum(1), max(SMALLEST, ENERGY_FLOOR)))
    before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(config.window) / (config.window - 1))) ** POVEY
    size = 1 << (config.window - 1).bit_length()  # the next power of two
    power = np.abs(np.fft.rfft((frames - PREEMPHASIS * before) * window, size)) ** 2  # [frames bins]
    mels = np.log(np.maximum(power @ _bands(size, config), SMALLEST))
    found: Array = mels @ _cosines(config.mels, config.coefficients)
    found *= 1 + 0.5 * LIFTER * np.sin(np.pi * np.arange(config.coefficients) / LIFTER)
    if config.use_energy:
        found[:, 0] = energy
    return found


def derivative(rows: Array) -> Array:
    """float64[frames width] -> the same shape: the slope of each column over 2 * REACH + 1 frames, the ends repeated."""
    padded = np.pad(rows, ((REACH, REACH), (0, 0)), mode="edge")
    steps = range(-REACH, REACH + 1)
    slope = sum(step * padded[REACH + step : REACH + step + len(rows)] for step in steps)
    return np.asarray(slope) / sum(step * step for step in steps)


def _bands(size: int, config: Mfcc) -> Array:
    """float64[bins mels]: triangles that are even on Kaldi's mel scale."""
    bands: Array = mel_filter_bank(
        size // 2 + 1, config.mels, LOWEST_HZ, config.sample_rate_hz / 2, config.sample_rate_hz,
        norm=None, mel_scale="kaldi", triangularize_in_mel_space=True,
    )  # fmt: skip
    return bands


def _cosines(mels: int, coefficients: int) -> Array:
    """float64[mels coefficients]: the first columns of an orthonormal cosine transform."""
    places, orders = np.arange(mels)[:, None] + 0.5, np.arange(coefficients)[None]
    found: Array = np.sqrt(2 / mels) * np.cos(np.pi / mels * places * orders)
    found[:, 0] = np.sqrt(1 / mels)
    return found
