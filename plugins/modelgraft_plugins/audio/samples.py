"""The work of audio/samples: the feature extractor of transformers, so that samples are equal to its to the last bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from transformers import Wav2Vec2FeatureExtractor

from modelgraft.plugin import Audio, InputError, LoadContext, NodeRuntime
from modelgraft_plugins.audio.hearing import Mono, mono, refuse_unheard

if TYPE_CHECKING:
    from modelgraft_plugins.audio import Samples

NAME = "audio/samples"


def load(config: Samples, _context: LoadContext) -> Sampler:
    """Make the function from sounds to samples and where they are."""
    return Sampler(config)


class Sampler:
    """Prepares sounds, and says what it changed about them."""

    def __init__(self, config: Samples) -> None:
        self.config = config
        extractor: Any = Wav2Vec2FeatureExtractor  # Any: transformers is only partly annotated
        self.extract = extractor(sampling_rate=config.sample_rate_hz, padding_value=config.filling, do_normalize=config.normalize)
        self.runtime: NodeRuntime | None = None

    def bind(self, runtime: NodeRuntime) -> None:
        """Take the run that is served: it hears the warnings."""
        self.runtime = runtime

    def __call__(self, audio: list[Audio]) -> dict[str, Tensor]:
        """Give samples float32[batch samples] and mask bool[batch samples].

        Raises InputError for a sound that is empty, shorter or longer than is heard, or not made of finite numbers.
        """
        rows = [self._row(record) for record in audio]
        found = self.extract(rows, sampling_rate=self.config.sample_rate_hz, padding=True, return_attention_mask=True, return_tensors="np")
        samples = torch.from_numpy(np.asarray(found["input_values"], dtype=np.float32))
        return {"samples": samples, "mask": torch.from_numpy(np.asarray(found["attention_mask"])).bool()}

    def _row(self, audio: Audio) -> Mono:
        """One sound by itself; a silent one is told, as no word is heard in it."""
        refuse_unheard(audio, component=NAME)
        rate, longest, least = self.config.sample_rate_hz, self.config.longest_s, self.config.least_samples
        if audio.seconds > longest:
            way_out = f"cut it into pieces, or set longest_s: {int(audio.seconds) + 1} where the memory is there"
            raise InputError(f"{NAME}: the sound lasts {audio.seconds:.1f} s and {longest:g} s are heard at once; {way_out}")
        row = mono(audio, rate=rate, say=self._say)
        if row.shape[0] < least:
            needed = f"the encoder makes its first vector of {least} ({least / rate:.3f} s)"
            found = f"the sound has {row.shape[0]} samples at {rate} Hz, and {needed}"
            raise InputError(f"{NAME}: {found}; give a longer sound")
        if float(row.min()) == float(row.max()):
            self._say("the sound is silent: all of its samples are the same")
        return row

    def _say(self, text: str) -> None:
        if self.runtime is not None:
            self.runtime.emit("warning", text=text)
