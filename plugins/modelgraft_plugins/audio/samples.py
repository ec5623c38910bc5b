"""The work of audio/samples, by numpy: equal to the feature extractor of transformers to the last bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from modelgraft.plugin import Audio, InputError, LoadContext, NodeRuntime
from modelgraft_plugins.audio.hearing import Mono, mono, refuse_unheard

if TYPE_CHECKING:
    from modelgraft_plugins.audio import Samples

NAME = "audio/samples"
LEAST = 1e-7  # added to a variance, so that silence is not divided by nothing


def load(config: Samples, _context: LoadContext) -> Sampler:
    """Make the function from sounds to samples and where they are."""
    return Sampler(config)


class Sampler:
    """Prepares sounds, and says what it changed about them."""

    def __init__(self, config: Samples) -> None:
        self.config = config
        self.runtime: NodeRuntime | None = None

    def bind(self, runtime: NodeRuntime) -> None:
        """Take the run that is served: it hears the warnings."""
        self.runtime = runtime

    def __call__(self, audio: list[Audio]) -> dict[str, Any]:
        """Give samples float32[batch samples] and mask bool[batch samples].

        Raises InputError for a sound that is empty, shorter or longer than is heard, or not made of finite numbers.
        """
        rows = [self._row(record) for record in audio]
        lengths = [len(row) for row in rows]
        samples = np.full((len(rows), max(lengths)), self.config.filling, dtype=np.float32)
        for whole, row in zip(samples, rows, strict=True):
            whole[: len(row)] = _scaled(row) if self.config.normalize else row
        return {"samples": samples, "mask": np.arange(max(lengths)) < np.array(lengths)[:, None]}

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


def _scaled(row: Mono) -> Mono:
    """Samples of mean 0 and variance 1."""
    scaled: Mono = (row - row.mean()) / np.sqrt(row.var() + LEAST)
    return scaled
