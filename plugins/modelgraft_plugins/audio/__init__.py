"""Sound: log-mel features, and the encoders that turn them into vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from modelgraft import Config, Ports, Space, component, hookimpl, port
from modelgraft_plugins import processor_files
from modelgraft_plugins.processor_files import NATURAL, NUMBER, WORD, Wanted, Written, is_number
from modelgraft_plugins.stated import tower_table
from modelgraft_plugins.widths import uneven_heads

if TYPE_CHECKING:
    from modelgraft.plugin import SolvedNode, Source

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


@component("audio/preprocess", kind="preprocess", load="modelgraft_plugins.audio.prepare:load", cache=False)
class Preprocess(Config):
    """Turn sounds into log-mel features as Whisper takes them: one window of fixed length, filled up with silence.

    Any sample rate and number of channels is taken; what is resampled or mixed down is said in a warning.
    """

    sample_rate_hz: int = Field(16_000, gt=0, description="rate that the encoder was trained at; other sounds are resampled")
    mels: int = Field(80, gt=0, le=4096, description="frequency bands")
    window_length: int = Field(400, gt=0, le=1 << 20, description="samples that one frame looks at")
    hop_length: int = Field(160, gt=0, description="samples from one frame to the next")
    chunk_s: int = Field(30, gt=0, description="length of the window, in seconds")
    filling: float = Field(0.0, description="sample that a sound is filled up with; 0 is silence")
    longer: Literal["refuse", "cut"] = Field("refuse", description="what becomes of a sound that is longer than the window")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the feature extractor inside `processor_config.json`, or `preprocessor_config.json`."""
        return features_config(source)

    @classmethod
    def unheeded(cls, source: Source) -> Iterable[tuple[str, str]]:
        """Give the keys of the file that are not known here."""
        return processor_files.unheeded(_written(source), {*KEYS, *IDLE}, "audio/preprocess")

    @model_validator(mode="after")
    def _can_be(self) -> Preprocess:
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

    def ports(self) -> Ports:
        """A sound in, features out."""
        return Ports.of({"audio": "audio"}, {"features": port("float[batch mels frames]", space=mel_space(self.model_dump()))})


NAMES: Mapping[str, str] = {  # the key of a published config -> ours
    "d_model": "hidden_size", "encoder_ffn_dim": "intermediate_size", "encoder_layers": "num_hidden_layers",
    "encoder_attention_heads": "num_attention_heads", "num_mel_bins": "mels", "max_source_positions": "positions",
    "activation_function": "hidden_act",
}  # fmt: skip
# what a published config states -> what becomes of it: its decoder is another part; a test compares it with transformers
TABLE = tower_table(
    obeyed=NAMES,
    idle={
        "vocab_size", "decoder_attention_heads", "decoder_ffn_dim", "decoder_layers", "max_target_positions", "num_hidden_layers",
        "forced_decoder_ids", "apply_spec_augment", "mask_feature_length", "mask_feature_min_masks", "mask_feature_prob",
        "mask_time_length", "mask_time_min_masks", "mask_time_prob", "median_filter_width", "classifier_proj_size",
        "use_weighted_layer_sum", "scale_embedding",  # of embeddings: the encoder has none
    },
    still={"is_encoder_decoder": (True, False)},
)  # fmt: skip


@component("audio/encoder", kind="encoder", module="modelgraft_plugins.audio.modules:Encoder", exportable=True)
class Encoder(Config):
    """Turn log-mel features into one vector per fiftieth of a second, with the encoder of Whisper."""

    hidden_size: int = Field(384, gt=0)
    intermediate_size: int = Field(1536, gt=0)
    num_hidden_layers: int = Field(4, gt=0)
    num_attention_heads: int = Field(6, gt=0)
    mels: int = Field(80, gt=0, description="frequency bands")
    positions: int = Field(1500, gt=0, description="vectors per window: two frames give one")
    hidden_act: str = "gelu"
    sample_rate_hz: int | None = Field(None, description="rate that the sound must have; None: any")
    window_length: int | None = None
    hop_length: int | None = None

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the config of a Whisper checkpoint; how it listens comes from the file of its feature extractor."""
        config = source.config
        if config.get("model_type") != "whisper":
            raise ValueError(f"audio/encoder has no encoder for model_type '{config.get('model_type', '')}'; it serves whisper")
        found = {ours: config[theirs] for theirs, ours in NAMES.items() if theirs in config}
        heard = features_config(source) if _written(source) is not None else {}
        return found | {name: heard[name] for name in ("sample_rate_hz", "window_length", "hop_length") if name in heard}

    @classmethod
    def unheeded(cls, source: Source) -> list[tuple[str, str]]:
        """What the config states of the encoder and this does not know."""
        return TABLE.unheeded(source.config, source.text)

    @property
    def frames(self) -> int:
        """Number of frames in a window."""
        return 2 * self.positions

    @property
    def tokens(self) -> int:
        """Number of vectors per window."""
        return self.positions

    def ports(self) -> Ports:
        """Features in, vectors out."""
        features = port("float[batch mels frames]", space=mel_space(self.model_dump()))
        return Ports.of({"features": features}, {"tokens": "float[batch tokens hidden_size]"})

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """The heads must share the width evenly."""
        return uneven_heads(node.name, self.hidden_size, self.num_attention_heads)

    def parameters(self) -> int:
        """Count two convolutions, positions, layers (keys have no bias), and the last norm."""
        width, inner = self.hidden_size, self.intermediate_size
        stem = (self.mels + width) * width * 3 + 2 * width + self.positions * width
        layer = 4 * width**2 + 3 * width + 2 * width * inner + inner + width + 4 * width
        return stem + self.num_hidden_layers * layer + 2 * width


def features_config(source: Source) -> dict[str, Any]:
    """Read how a checkpoint turns sounds into features.

    Raises ValueError when it does not say, or does it in another way than Whisper, and SourceError `source-damaged` for
    values that are of another kind than their keys want.
    """
    written = _written(source)
    if written is None:
        raise ValueError("the source has no preprocessor_config.json and no feature extractor in a processor_config.json")
    written.check({"feature_extractor_type": WORD})
    kind = written.values.get("feature_extractor_type") or (KIND if source.root.get("model_type") == "whisper" else "")
    if kind != KIND:
        raise ValueError(f"audio/preprocess has no '{kind}'; it has {KIND}")
    written.check(KEYS, null=False)
    return {ours: written.values[theirs] for theirs, ours in PUBLISHED.items() if theirs in written.values}


def _written(source: Source) -> Written | None:
    return processor_files.find(source, "feature_extractor", "audio_processor")


def mel_space(config: Mapping[str, Any]) -> Space:
    """The space of features that were made with these numbers; None: nothing is known of one."""
    facts = ("sample_rate_hz", "mels", "window_length", "hop_length")
    return Space.of("log-mel", **{fact: config[fact] for fact in facts})


@hookimpl
def register_components(register: Callable[[Any], None]) -> None:
    """Offer the components of this plugin."""
    register(Preprocess)
    register(Encoder)
