"""A sound as one row of samples at the rate of a model: what every preparation of sounds does first."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from modelgraft.plugin import Audio, InputError, resample

Mono = np.ndarray[tuple[int], np.dtype[np.float32]]
Say = Callable[[str], None]


def refuse_unheard(audio: Audio, *, component: str) -> None:
    """Raise InputError for a sound without samples, or with such as are no finite numbers."""
    if audio.samples.shape[-1] == 0:
        raise InputError(f"{component}: the sound is empty: it holds no samples")
    if not np.isfinite(audio.samples).all():
        raise InputError(f"{component}: the sound holds samples that are no finite numbers; write it again as plain wav")


def mono(audio: Audio, *, rate: int, say: Say) -> Mono:
    """One channel at a rate in Hz; what was mixed or resampled is said."""
    if audio.samples.shape[0] > 1:
        say(f"{audio.samples.shape[0]} channels were mixed into one")
        audio = Audio(audio.samples.mean(0, keepdims=True), audio.sample_rate_hz)
    if audio.sample_rate_hz != rate:
        say(f"the sound was resampled from {audio.sample_rate_hz} Hz to {rate} Hz")
        audio = resample(audio, rate)
    row: Mono = audio.samples[0]
    return row
