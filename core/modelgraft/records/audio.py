"""Sounds."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from modelgraft.records.record_type import Reading, RecordType

if TYPE_CHECKING:
    from modelgraft.records.sounds import Audio


class AudioType(RecordType):
    """Samples with their rate: `modelgraft.Audio`."""

    name, meaning = "audio", "a sound: samples with their rate"
    reads = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64")
    writes = (".wav",)
    colour = ("#d97706", "#f5b04f")

    def read(self, value: Any, reading: Reading) -> Audio:
        """Decode a file, or take samples and their rate."""
        from modelgraft.records import sounds
        from modelgraft.records.owning import own

        if isinstance(value, sounds.Audio):
            found: sounds.Audio = own(sounds.checked_sound(value, reading.label))
            return found
        if isinstance(value, str | bytes | os.PathLike):
            return sounds.read_audio(value, name=reading.label, say=reading.tell, find=reading.find)
        if isinstance(value, tuple) and len(value) == 2 and hasattr(value[0], "shape"):
            return sounds.sound_of_array(value[0], value[1], reading.label)
        raise reading.refused(value, "audio: a file name, bytes, modelgraft.Audio or (samples, sample_rate_hz)")

    def accepts(self, value: Any) -> bool:
        """Sounds."""
        from modelgraft.records.sounds import Audio

        return isinstance(value, Audio)

    def example(self, index: int) -> Audio:
        """A tone of a quarter of a second, and a longer one."""
        import numpy

        from modelgraft.records.sounds import Audio

        return Audio(numpy.sin(numpy.arange(4000 + 800 * index) / 9.0).astype(numpy.float32)[None], 16_000)

    def spoken(self, text: str, label: str) -> str:  # noqa: ARG002 a file may be named like anything
        """The name of a file."""
        return text
