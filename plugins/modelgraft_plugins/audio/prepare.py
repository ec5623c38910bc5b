"""The work of audio/preprocess: the feature extractor of transformers, so that features are equal to its."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from transformers import WhisperFeatureExtractor

from modelgraft.plugin import Audio, InputError, LoadContext, NodeRuntime, resample

if TYPE_CHECKING:
    from modelgraft_plugins.audio import Preprocess

Mono = np.ndarray[tuple[int], np.dtype[np.float32]]


def load(config: Preprocess, _context: LoadContext) -> Listener:
    """Make the function from sounds to float32[batch mels frames]."""
    return Listener(config)


class Listener:
    """Prepares sounds, and says what it changed about them."""

    def __init__(self, config: Preprocess) -> None:
        self.config = config
        extractor: Any = WhisperFeatureExtractor  # Any: transformers is only partly annotated
        self.extract = extractor(
            feature_size=config.mels, sampling_rate=config.sample_rate_hz, hop_length=config.hop_length, chunk_length=config.chunk_s,
            n_fft=config.window_length, padding_value=config.filling,
        )  # fmt: skip
        self.runtime: NodeRuntime | None = None

    def bind(self, runtime: NodeRuntime) -> None:
        """Take the run that is served: it hears the warnings."""
        self.runtime = runtime

    def __call__(self, audio: list[Audio]) -> Tensor:
        """Give the features of a batch.

        Raises InputError for a sound that is empty, longer than the window, or not made of finite numbers.
        """
        heard = [self._mono(record) for record in audio]
        found = self.extract(heard, sampling_rate=self.config.sample_rate_hz, return_tensors="np", padding="max_length")
        return torch.from_numpy(np.asarray(found["input_features"], dtype=np.float32))

    def _mono(self, audio: Audio) -> Mono:
        samples, rate = audio.samples, self.config.sample_rate_hz
        if samples.shape[-1] == 0:
            raise InputError("audio/preprocess: the sound is empty: it holds no samples")
        if not np.isfinite(samples).all():
            raise InputError("audio/preprocess: the sound holds samples that are no finite numbers; write it again as plain wav")
        if audio.seconds > self.config.chunk_s:
            audio = self._shortened(audio)
        if audio.samples.shape[0] > 1:
            self._say(f"{audio.samples.shape[0]} channels were mixed into one")
            audio = Audio(audio.samples.mean(0, keepdims=True), audio.sample_rate_hz)
        if audio.sample_rate_hz != rate:
            self._say(f"the sound was resampled from {audio.sample_rate_hz} Hz to {rate} Hz")
            audio = resample(audio, rate)
        mono: Mono = audio.samples[0]
        return mono

    def _shortened(self, audio: Audio) -> Audio:
        limit = self.config.chunk_s
        if self.config.longer == "refuse":
            way_out = "cut it into pieces, or set `longer: cut` to hear its beginning only"
            raise InputError(f"audio/preprocess: the sound lasts {audio.seconds:.1f} s and {limit} s are heard at once; {way_out}")
        self._say(f"the sound lasts {audio.seconds:.1f} s; only the first {limit} s are heard")
        return Audio(audio.samples[:, : limit * audio.sample_rate_hz], audio.sample_rate_hz)

    def _say(self, text: str) -> None:
        if self.runtime is not None:
            self.runtime.emit("warning", text=text)
