"""Real speech: half a minute of two people talking, that comes with a package of speaker diarisation (MIT)."""

from __future__ import annotations

from modelgraft import Audio
from modelgraft.records.sounds import read_audio
from modelgraft.sources import archives

RECORDING = "pypi:pyannote.audio==3.3.2/pyannote/audio/sample/sample.wav"  # 16 kHz, one channel; fetched once, 0.9 MB


def talk(start_s: float, seconds: float) -> Audio:
    """A piece of the recording."""
    whole = read_audio(str(archives.member(RECORDING)), name="talk")
    first, count = int(start_s * whole.sample_rate_hz), int(seconds * whole.sample_rate_hz)
    return Audio(whole.samples[:, first : first + count], whole.sample_rate_hz)
