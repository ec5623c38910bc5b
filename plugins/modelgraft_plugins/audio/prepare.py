"""The work of audio/preprocess: a sound as one window of log-mel features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from modelgraft.plugin import Audio, InputError, LoadContext, NodeRuntime
from modelgraft_plugins.audio.hearing import Mono, mono, refuse_unheard
from modelgraft_plugins.audio.log_mel import LogMel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from modelgraft_plugins.audio.features import Preprocess


def load(config: Preprocess, _context: LoadContext) -> Listener:
    """Make the function from sounds to float32[batch mels frames]."""
    return Listener(config)


class Listener:
    """Prepares sounds, and says what it changed about them."""

    def __init__(self, config: Preprocess) -> None:
        self.config, self.features = config, LogMel(config)
        self.runtime: NodeRuntime | None = None

    def bind(self, runtime: NodeRuntime) -> None:
        """Take the run that is served: it hears the warnings."""
        self.runtime = runtime

    def __call__(self, audio: list[Audio]) -> NDArray[np.float32]:
        """Give the features of a batch, float32[batch mels frames].

        Raises InputError for a sound that is empty, longer than the window, or not made of finite numbers.
        """
        return np.stack([self.features(self._filled(self._mono(record))) for record in audio])

    def _filled(self, row: Mono) -> Mono:
        """As many samples as the window has; resampling may round up."""
        whole: Mono = np.full(self.config.chunk_s * self.config.sample_rate_hz, self.config.filling, dtype=np.float32)
        kept = row[: len(whole)]
        whole[: len(kept)] = kept
        return whole

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
