"""Log-mel features as Whisper takes them: what checkpoints say of them, and the components that make them. Light."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from modelgraft import Config, Ports, Space, component, port
from modelgraft.plugin import families
from modelgraft_plugins import processor_files
from modelgraft_plugins.processor_files import NATURAL, NUMBER, WORD, Wanted, Written, is_number

if TYPE_CHECKING:
    from modelgraft.plugin import Port, Source

MEDIUM = "audio"
# the field of a published file -> ours
PUBLISHED: Mapping[str, str] = {
    "sampling_rate": "sample_rate_hz", "feature_size": "mels", "hop_length": "hop_length", "n_fft": "window_length",
    "chunk_length": "chunk_s", "padding_value": "filling",
}  # fmt: skip
# keys that are read, and what they may hold
KEYS: Mapping[str, Wanted] = {
    **dict.fromkeys(("sampling_rate", "feature_size", "hop_length", "n_fft", "chunk_length"), NATURAL),
    "padding_value": NUMBER,
    "dither": ("0: noise that is added at random is not served", lambda value: is_number(value) and value == 0),
    "padding_side": ("'right': a sound is filled up behind its end", lambda value: value == "right"),
    "feature_extractor_type": WORD,
}
# keys that change no feature: masks are not asked for, the others follow from those above
IDLE = frozenset({"n_samples", "nb_max_frames", "return_attention_mask", "do_normalize", "mel_filters"})
KIND = "WhisperFeatureExtractor"
MOST_SAMPLES = 100_000_000  # of a window: 400 MB of float32, an hour and a half at 16 kHz


class Hearing(Config):
    """How sounds become log-mel features; not a component itself."""

    sample_rate_hz: int = Field(16_000, gt=0, description="rate that the encoder was trained at; other sounds are resampled")
    mels: int = Field(80, gt=0, le=4096, description="frequency bands")
    window_length: int = Field(400, gt=0, le=1 << 20, description="samples that one frame looks at")
    hop_length: int = Field(160, gt=0, description="samples from one frame to the next")
    chunk_s: int = Field(30, gt=0, description="length of the window, in seconds")
    filling: float = Field(0.0, description="sample that a sound is filled up with; 0 is silence")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the feature extractor inside `processor_config.json`, or `preprocessor_config.json`."""
        return features_config(source)

    @classmethod
    def unheeded(cls, source: Source) -> Iterable[tuple[str, str]]:
        """Give the keys of the file that are not known here."""
        return processor_files.unheeded(written_of(source), {*KEYS, *IDLE}, "audio/preprocess")

    @model_validator(mode="after")
    def _can_be(self) -> Self:
        if self.chunk_s * self.sample_rate_hz > MOST_SAMPLES:
            found = f"chunk_s is {self.chunk_s:,} at {self.sample_rate_hz:,} Hz: a window of {self.chunk_s * self.sample_rate_hz:,} samples"
            raise ValueError(f"{found}, and {MOST_SAMPLES:,} are the most")
        if self.hop_length > self.chunk_s * self.sample_rate_hz:
            raise ValueError(f"hop_length is {self.hop_length:,}, more than the {self.chunk_s * self.sample_rate_hz:,} samples of a window")
        return self

    @property
    def frames(self) -> int:
        """Number of frames in a window."""
        return self.chunk_s * self.sample_rate_hz // self.hop_length

    def window(self, *, several: str = "") -> Port:
        """The port of the features of a window; several: of as many as a record has."""
        return port("float[batch mels frames]", space=mel_space(self.model_dump()), several=several)


@component("audio/preprocess", kind="preprocess", load="modelgraft_plugins.audio.prepare:load", arrays=True, cache=False)
class Preprocess(Hearing):
    """Turn sounds into log-mel features as Whisper takes them: one window of fixed length, filled up with silence.

    Any sample rate and number of channels is taken; what is resampled or mixed down is said in a warning.
    """

    longer: Literal["refuse", "cut"] = Field("refuse", description="what becomes of a sound that is longer than the window")

    def ports(self) -> Ports:
        """A sound in, features out."""
        return Ports.of({"audio": "audio"}, {"features": self.window()})


@component("audio/windows", kind="preprocess", load="modelgraft_plugins.audio.windows:load", arrays=True, cache=False)
class Windows(Hearing):
    """Turn any number of sounds of a record into log-mel features, a window of fixed length at a time: what follows runs once for each.

    longer  what becomes of a sound that is longer than a window: it is refused, cut, or split, where the features are those of the
            whole sound, filled up to whole windows with silence
    mask    of the frames of a window: which are made of sound, not of the silence that fills it up
    counts  windows of each sound, in order; 0 behind the last. `router/join` takes them
    Any sample rate and number of channels is taken; what is resampled or mixed down is said in a warning.
    """

    longer: Literal["refuse", "cut", "split"] = Field("refuse", description="what becomes of a sound that is longer than a window")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """As of audio/preprocess, and whether the model around it hears long sounds in several windows."""
        around = families().whole(source.root.get("model_type")).components.get("audio/windows", {})
        return {**super().from_source(source), **around}

    def ports(self) -> Ports:
        """Sounds in; a window of features for each, or several, out."""
        audio = port("optional[audio | list[audio]]", doc="a sound, or any number of them")
        windows = {"features": self.window(several="windows"), "mask": port("bool[batch frames]", several="windows")}
        return Ports.of({"audio": audio}, {**windows, "counts": port("int64[batch sounds]")})


def features_config(source: Source) -> dict[str, Any]:
    """Read how a checkpoint turns sounds into features.

    Raises ValueError when it does not say, or does it in another way than Whisper, and SourceError `source-damaged` for
    values that are of another kind than their keys want.
    """
    written = written_of(source)
    if written is None:
        raise ValueError("the source has no preprocessor_config.json and no feature extractor in a processor_config.json")
    written.check({"feature_extractor_type": WORD})
    kind = written.values.get("feature_extractor_type") or _extractor(source)
    if kind != KIND:
        raise ValueError(f"audio/preprocess has no '{kind}'; it has {KIND}")
    written.check(KEYS, null=False)
    return {ours: written.values[theirs] for theirs, ours in PUBLISHED.items() if theirs in written.values}


def _extractor(source: Source) -> str:
    """The feature extractor of a model whose files name none."""
    card = families().of_medium(MEDIUM).get(str(source.root.get("model_type")))
    return str(card.more.get("features", "")) if card is not None else ""


def written_of(source: Source) -> Written | None:
    """What a checkpoint says of its feature extractor; None where it says nothing."""
    return processor_files.find(source, "feature_extractor", "audio_processor")


def mel_space(config: Mapping[str, Any]) -> Space:
    """The space of features that were made with these numbers; None: nothing is known of one."""
    facts = ("sample_rate_hz", "mels", "window_length", "hop_length")
    return Space.of("log-mel", **{fact: config[fact] for fact in facts})
