"""The work of audio/filterbank: Kaldi's filter bank as transformers computes it, of clips as PyTorchVideo cuts them."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from modelgraft.plugin import Audio, InputError, LoadContext, NodeRuntime, resample

if TYPE_CHECKING:
    from modelgraft_plugins.embedding.preparing import Filterbank

Samples = np.ndarray[Any, np.dtype[np.float32]]

LOWEST_HZ = 20.0  # below are no bands; above they end at half of the rate
PREEMPHASIS = 0.97  # each sample less so much of the one before it
SMALLEST = float(np.finfo(np.float32).eps)  # energies below it count as it, so that silence has a logarithm


def load(config: Filterbank, _context: LoadContext) -> Listener:
    """Make the function from sounds to float32[batch clips 1 mels frames], or float32[batch 1 mels frames]."""
    return Listener(config)


class Listener:
    """Prepares sounds, and says what it changed about them."""

    def __init__(self, config: Filterbank) -> None:
        assert config.mels is not None and config.frames is not None, "a graph is solved before it is loaded"  # noqa: PT018
        self.config, self.frames = config, config.frames
        self.size = 1 << (config.window - 1).bit_length()  # of the transform: the next power of two
        with warnings.catch_warnings():  # the lowest of 128 bands lie between two places of the transform: empty, as published
            warnings.filterwarnings("ignore", "At least one mel filter has all zero values")
            self.bands = mel_filter_bank(
                self.size // 2 + 1, config.mels, LOWEST_HZ, config.sample_rate_hz / 2, config.sample_rate_hz,
                norm=None, mel_scale="kaldi", triangularize_in_mel_space=True,
            )  # fmt: skip
        self.shape = window_function(config.window, "hann", periodic=False)
        self.runtime: NodeRuntime | None = None

    def bind(self, runtime: NodeRuntime) -> None:
        """Take the run that is served: it hears the warnings."""
        self.runtime = runtime

    def __call__(self, audio: list[Audio]) -> Tensor:
        """Prepare a batch. Raises InputError for a sound that is empty, shorter than one frame, or not made of finite numbers."""
        found = torch.from_numpy(np.stack([self._clips(self._mono(record)) for record in audio]))
        return found[:, 0] if self.config.windows is None else found

    def _clips(self, sound: Samples) -> Samples:
        """float32[samples] -> float32[clips 1 mels frames]."""
        config = self.config
        count = config.windows or 1
        wanted = len(sound) if config.windows is None else round(config.window_s * config.sample_rate_hz)
        if wanted > len(sound):
            self._say(
                f"the sound lasts {len(sound) / config.sample_rate_hz:.3g} s and a clip {config.window_s:.3g} s: each clip is all of it"
            )
        spare = max(len(sound) - wanted, 0)
        begins = [spare * index // max(count - 1, 1) for index in range(count)]
        return np.stack([self._filtered(sound[begin : begin + wanted])[None] for begin in begins])

    def _filtered(self, clip: Samples) -> Samples:
        """float32[samples] -> float32[mels frames], filled up or cut, normalised."""
        config = self.config
        logarithms = spectrogram(
            clip - clip.mean(), self.shape, config.window, config.hop, fft_length=self.size, center=False, preemphasis=PREEMPHASIS,
            remove_dc_offset=True, mel_filters=self.bands, power=2.0, log_mel="log", mel_floor=SMALLEST,
        )  # fmt: skip
        there = logarithms.shape[1]
        if there > self.frames and config.windows is None:
            heard = (self.frames - 1) * config.hop + config.window
            self._say(f"the sound has {there:,} frames; the first {self.frames:,} are heard, {heard / config.sample_rate_hz:.3g} s")
        logarithms = logarithms[:, : self.frames]
        whole = np.pad(logarithms, ((0, 0), (0, self.frames - logarithms.shape[1])))
        return ((whole - config.mean) / config.std).astype(np.float32)

    def _mono(self, audio: Audio) -> Samples:
        """float32[samples] at the rate that is wanted."""
        channels, rate = audio.samples.shape[0], self.config.sample_rate_hz
        if audio.samples.shape[-1] == 0:
            raise InputError("audio/filterbank: the sound is empty: it holds no samples")
        if not math.isfinite(float(audio.samples.sum(dtype=np.float64))):
            raise InputError("audio/filterbank: the sound holds samples that are no finite numbers; write it again as plain wav")
        if channels > 1:
            self._say(f"of {channels} channels the first is heard")
            audio = Audio(audio.samples[:1], audio.sample_rate_hz)
        if audio.sample_rate_hz != rate:
            self._say(f"the sound was resampled from {audio.sample_rate_hz} Hz to {rate} Hz")
            audio = resample(audio, rate)
        samples: Samples = audio.samples[0]
        if len(samples) < self.config.window:
            short = f"the sound lasts {1000 * len(samples) / rate:.3g} ms, and one frame looks at {self.config.frame_ms:g} ms"
            raise InputError(f"audio/filterbank: {short}: give a longer one")
        if not samples.any():
            self._say("the sound is silent: its vector says nothing")
        return samples

    def _say(self, text: str) -> None:
        if self.runtime is not None:
            self.runtime.emit("warning", text=text)
