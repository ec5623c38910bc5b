"""Speech synthesis: from text to sounds of the language, and from those to a voice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field

from modelgraft import Config, Ports, Space, component, hookimpl, port

Voice = Literal["jf_alpha", "jf_gongitsune", "jf_nezumi", "jf_tebukuro", "jm_kumo"]
PHONEMES = Space.of("phonemes", language="en-us", alphabet="kokoro")


@component("speech/transcript", kind="preprocess", inputs={"text": "text"}, outputs={"text": "text"})
def transcript(text: list[str]) -> list[str]:
    """Tidy what a recogniser wrote: single spaces, none at the ends."""
    return [" ".join(record.split()) for record in text]


@component("speech/phonemes", kind="preprocess", load="modelgraft_plugins.speech.pronounce:load", cache=False)
class Phonemes(Config):
    """Write down how English text sounds, in the letters of the International Phonetic Alphabet.

    Numbers are spelled out. Words are looked up in the CMU dictionary; one that is not there is spelled by its letters
    when it is an abbreviation and pronounced by a small trained network otherwise.
    """

    def ports(self) -> Ports:
        """Text in, sounds out."""
        return Ports.of({"text": "text"}, {"phonemes": port("text", space=PHONEMES)})


@component("speech/kokoro", kind="generator", load="modelgraft_plugins.speech.kokoro:load")
class Kokoro(Config):
    """Speak sounds of the language with Kokoro, a neural voice of 82 million parameters in 8-bit integers, at 24 kHz.

    The voices that ship in a package are Japanese speakers; their English has a light accent.
    """

    voice: Voice = Field(
        "jf_gongitsune",  # of the five the one that a recogniser understood best
        description="who speaks: jf_ a woman, jm_ a man",
    )
    speed: float = Field(1.0, ge=0.5, le=2.0, description="how fast; 1 is the voice's own pace")
    pause_s: float = Field(0.25, ge=0, le=5, description="silence between sentences, in seconds")

    def ports(self) -> Ports:
        """Sounds of the language in, and who speaks them where that differs from record to record; a recording out."""
        spoken = {
            "phonemes": port("text", space=PHONEMES),
            "voice": port("optional[text]", doc="the voice of each record, in place of `voice`"),
        }
        return Ports.of(spoken, {"audio": port("audio", space=Space.of("sound", sample_rate_hz=24_000))})


@hookimpl
def register_components(register: Callable[[Any], None]) -> None:
    """Offer the components of this plugin."""
    register(transcript)
    register(Phonemes)
    register(Kokoro)
