"""The work of audio/preprocess: the feature extractor of transformers, so that features are equal to its."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from transformers import WhisperFeatureExtractor

from modelgraft.plugin import Audio, InputError, LoadContext, NodeRuntime
from modelgraft_plugins.audio.hearing import Mono, mono, refuse_unheard

if TYPE_CHECKING:
    from modelgraft_plugins.audio.features import Hearing, Preprocess


def load(config: Preprocess, _context: LoadContext) -> Listener:
    """Make the function from sounds to float32[batch mels frames]."""
    return Listener(config)


def extractor_of(config: Hearing) -> Any:
    """The feature extractor with these numbers."""
    extractor: Any = WhisperFeatureExtractor  # Any: transformers is only partly annotated
    return extractor(
        feature_size=config.mels, sampling_rate=config.sample_rate_hz, hop_length=config.hop_length, chunk_length=config.chunk_s,
        n_fft=config.window_length, padding_value=config.filling,
    )  # fmt: skip


class Listener:
    """Prepares sounds, and says what it changed about them."""

    def __init__(self, config: Preprocess) -> None:
        self.config, self.extract = config, extractor_of(config)
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
        refuse_unheard(audio, component="audio/preprocess")
        if audio.seconds > self.config.chunk_s:
            audio = self._shortened(audio)
        return mono(audio, rate=self.config.sample_rate_hz, say=self._say)

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
