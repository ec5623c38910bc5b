"""The work of audio/windows: the log-mel features of a sound at a time, cut into windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from modelgraft.plugin import Audio, InputError, LoadContext, NodeRuntime
from modelgraft_plugins.audio.hearing import Mono, mono, refuse_unheard
from modelgraft_plugins.audio.log_mel import LogMel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from modelgraft_plugins.audio.features import Windows

NAME = "audio/windows"


def load(config: Windows, _context: LoadContext) -> Cutter:
    """Make the function from lists of sounds to their windows."""
    return Cutter(config)


def _sounds(given: Any) -> Sequence[Audio]:
    """The sounds of a record: one, several, or none."""
    return (given,) if isinstance(given, Audio) else given or ()


class Cutter:
    """Prepares sounds, and says what it changed about them."""

    def __init__(self, config: Windows) -> None:
        self.config, self.features = config, LogMel(config)
        self.runtime: NodeRuntime | None = None

    def bind(self, runtime: NodeRuntime) -> None:
        """Take the run that is served: it hears the warnings."""
        self.runtime = runtime

    def __call__(self, audio: Sequence[Any]) -> dict[str, Any]:
        """Give for each record the features float32[windows mels frames] of all of its sounds, the mask of their frames, and counts.

        Raises InputError for a sound that is empty, longer than it may be, or not made of finite numbers.
        """
        rows = [[self._windows(sound) for sound in _sounds(record)] for record in audio]
        config = self.config
        nothing = np.zeros((0, config.mels, config.frames), np.float32), np.zeros((0, config.frames), bool)
        counts = np.zeros((len(rows), max(map(len, rows), default=0)), np.int64)
        for at, row in enumerate(rows):
            counts[at, : len(row)] = [len(features) for features, _ in row]
        features, mask = ([np.concatenate([nothing[place], *(pair[place] for pair in row)]) for row in rows] for place in (0, 1))
        return {"features": features, "mask": mask, "counts": counts}

    def _windows(self, audio: Audio) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """float32[windows mels frames] and bool[windows frames] of a sound: what becomes of it is known of the whole."""
        config = self.config
        row = self._row(audio)
        window = config.chunk_s * config.sample_rate_hz
        whole = np.full(-(-len(row) // window) * window, config.filling, dtype=np.float32)
        whole[: len(row)] = row
        features = self.features(whole).reshape(config.mels, -1, config.frames).swapaxes(0, 1)
        there = (np.arange(0, len(whole), config.hop_length) < len(row))[: features.shape[0] * config.frames]
        return features, there.reshape(-1, config.frames)

    def _row(self, audio: Audio) -> Mono:
        refuse_unheard(audio, component=NAME)
        limit, longer = self.config.chunk_s, self.config.longer
        if audio.seconds > limit and longer == "refuse":
            way_out = "cut it into pieces, set `longer: cut` to hear its beginning only, or `longer: split` where the model hears several"
            raise InputError(f"{NAME}: the sound lasts {audio.seconds:.1f} s and {limit} s are heard at once; {way_out}")
        if audio.seconds > limit and longer == "cut":
            self._say(f"the sound lasts {audio.seconds:.1f} s; only the first {limit} s are heard")
            audio = Audio(audio.samples[:, : limit * audio.sample_rate_hz], audio.sample_rate_hz)
        row = mono(audio, rate=self.config.sample_rate_hz, say=self._say)
        return row if longer == "split" else row[: limit * self.config.sample_rate_hz]  # resampling may round up

    def _say(self, text: str) -> None:
        if self.runtime is not None:
            self.runtime.emit("warning", text=text)
