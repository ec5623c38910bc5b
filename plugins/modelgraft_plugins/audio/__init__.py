"""Sound: log-mel features, and the encoders that turn them into vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from modelgraft import Config, Ports, Space, component, hookimpl, port
from modelgraft.plugin import AUTO, TowerCard, families
from modelgraft_plugins import processor_files
from modelgraft_plugins.audio import ctc, pretraining, taking, waves
from modelgraft_plugins.audio.features import IDLE as IDLE
from modelgraft_plugins.audio.features import KEYS as KEYS
from modelgraft_plugins.audio.features import MEDIUM, Preprocess, Windows, features_config, mel_space, written_of
from modelgraft_plugins.audio.features import PUBLISHED as PUBLISHED
from modelgraft_plugins.counted import counted, no_card
from modelgraft_plugins.model_identity import features_space, model_identity
from modelgraft_plugins.stated import Table, tower_table
from modelgraft_plugins.widths import check_layer, uneven_heads

if TYPE_CHECKING:
    from modelgraft.plugin import Port, SolvedNode, Source

ON_THE_HUB: Mapping[str, str] = {  # a checkpoint of facebook's -> its sizes; those that were fine-tuned on letters have the same encoder
    "wav2vec2-base": "wav2vec2-base",
    "wav2vec2-base-960h": "wav2vec2-base",
    "wav2vec2-large": "wav2vec2-large",
    "wav2vec2-large-960h": "wav2vec2-large",
    "wav2vec2-large-lv60": "wav2vec2-large-lv60",
    "wav2vec2-large-960h-lv60": "wav2vec2-large-lv60",
    "wav2vec2-large-960h-lv60-self": "wav2vec2-large-lv60",
    "wav2vec2-large-xlsr-53": "wav2vec2-large-xlsr-53",
    "wav2vec2-xls-r-300m": "wav2vec2-xls-r-300m",
    "wav2vec2-xls-r-1b": "wav2vec2-xls-r-1b",
    "wav2vec2-xls-r-2b": "wav2vec2-xls-r-2b",
}


@component("audio/samples", kind="preprocess", load="modelgraft_plugins.audio.samples:load", arrays=True, cache=False)
class Samples(Config):
    """Turn sounds into samples as wav2vec 2.0 and HuBERT take them: one channel at one rate, scaled each by itself, filled up in a batch.

    Any sample rate and number of channels is taken; what is resampled or mixed down is said in a warning.
    mask  is True where there is sound: what fills a shorter one up is no silence
    """

    sample_rate_hz: int = Field(16_000, gt=0, description="rate that the encoder was trained at; other sounds are resampled")
    normalize: bool = Field(True, description="each sound is brought to the mean 0 and the variance 1")
    filling: float = Field(0.0, description="sample that a sound is filled up with")
    least_samples: int = Field(1, gt=0, description="shorter sounds give no vector, and are refused")
    longest_s: float = Field(600.0, gt=0, description="longer sounds are refused: attention takes memory by the square of the length")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the feature extractor, and what the encoder needs: its norms, and the fewest samples that it makes a vector of."""
        return taking.samples_config(source)

    @classmethod
    def unheeded(cls, source: Source) -> Iterable[tuple[str, str]]:
        """Give the keys of the file that are not known here."""
        return processor_files.unheeded(taking.written(source), taking.KEYS, "audio/samples")

    def ports(self) -> Ports:
        """A sound in; its samples and where they are out."""
        space = Space.of("wave", sample_rate_hz=self.sample_rate_hz)
        return Ports.of({"audio": "audio"}, {"samples": port("float[batch samples]", space=space), "mask": "bool[batch samples]"})


UNKNOWN = TowerCard(MEDIUM, pooled=False)  # of an encoder that no card speaks of
CONVOLUTIONS = ("conv_stride", "conv_kernel")  # keys of the configs of encoders that listen to samples
WORDS = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act")


def card_of(family: str, model: Mapping[str, Any]) -> TowerCard:
    """The card of an encoder by its style, or by the model type of its config where it is run as transformers runs it."""
    found = families().tower(model.get("model_type")) if family == AUTO else families().style(MEDIUM, family)
    return found if found is not None and found.medium == MEDIUM else UNKNOWN


def styles() -> list[str]:
    """The styles that there are, `auto` among them."""
    return sorted({AUTO, *(card.style for card in families().of_medium(MEDIUM).values())})


def table() -> Table:
    """What a published config states -> what becomes of it: its decoder is another part; a test compares it with transformers."""
    cards = [card for card in families().of_medium(MEDIUM).values() if card.style != AUTO]
    obeyed = {key for card in cards for key in (*card.names.values(), *card.obeyed)}
    return tower_table(obeyed, {key for card in cards for key in card.idle}, {"is_encoder_decoder": (True, False)})


@component("audio/encoder", kind="encoder", module="modelgraft_plugins.audio.modules:Encoder", exportable=True, keywords=("ear",))
class Encoder(Config):
    """Turn a sound into vectors: log-mel features with the encoder of Whisper, one per fiftieth of a second; samples with others.

    Encoders that listen to samples, such as those of wav2vec 2.0, have the input `samples`, at the rate that they were trained with.
    Those that tell sound from what fills it up (Qwen2-Audio) take the mask of the frames, and give `frame_mask` as below.
    Those that a card speaks of (wav2vec 2.0, HuBERT) take the mask of the samples too, and give beside the tokens:
    conv_features, normed  what the convolutions made of the samples, before and after its norm
    frame_mask             which tokens are made of sound alone: the others, at the end of sounds that were filled up, are 0
    spans                  (input) tokens that one learned vector stands for, as in their training
    layer  samples: which layer gives the tokens, by the number that transformers' `hidden_states` has; None: the last, normed
    A file of fairseq is read by the shapes of its tensors, where it lies beside no config.
    """

    family: str = Field("whisper", description="how the encoder is built: a style such as whisper; auto: by its `model`")
    model: dict[str, Any] = Field({}, description="auto: the encoder's own config, as in its config.json; the fields below go over it")
    hidden_size: int = Field(384, gt=0)
    intermediate_size: int = Field(1536, gt=0)
    num_hidden_layers: int = Field(4, gt=0)
    num_attention_heads: int = Field(6, gt=0)
    mels: int = Field(80, gt=0, description="frequency bands")
    positions: int = Field(1500, gt=0, description="places per window: two frames give one")
    hidden_act: str = "gelu"
    sample_rate_hz: int | None = Field(None, description="rate that the sound must have; None: any")
    window_length: int | None = None
    hop_length: int | None = None
    layer: int | None = None
    conv_stride: tuple[int, ...] = Field((), description="samples: steps of the convolutions, where the source does not say them")
    statistics: Literal["sound", "batch"] = Field(
        "sound", description="of group norms: over each sound alone; batch: over what fills it up too, as in transformers and fairseq"
    )
    identity: str | None = Field(None, description="samples: whose vectors the tokens are, so that what was made of others is refused")
    samples: int | None = Field(None, gt=0, description="samples: length of every sound, where it is fixed; None: any")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the config of an encoder; how it listens comes from the file of its feature extractor."""
        config, kind = source.config, str(source.config.get("model_type", "" if source.root else WAVES))
        known = families().of_medium(MEDIUM)
        if kind in known and waves.is_heard(known[kind]):
            return _heard(source, known[kind])
        if kind not in known and not _is_clear(config):
            served = ", ".join(sorted(known))
            raise ValueError(f"audio/encoder has no encoder for model_type '{kind}'; it serves {served}")
        card = known.get(kind, UNKNOWN)
        if card.style == AUTO:
            stated = {word: config[key] for word in WORDS if (key := card.names.get(word, word)) in config}
            return {"family": AUTO, "model": dict(config), **stated}
        found = {**card.defaults, **{ours: config[theirs] for ours, theirs in card.names.items() if theirs in config}}
        heard = features_config(source) if written_of(source) is not None else {}
        hearing: dict[str, Any] = {name: heard[name] for name in ("sample_rate_hz", "window_length", "hop_length") if name in heard}
        return {"family": card.style, **found, **hearing}

    @classmethod
    def unheeded(cls, source: Source) -> list[tuple[str, str]]:
        """What the config states of the encoder and this does not know; and where no card knows it."""
        kind = str(source.config.get("model_type", ""))
        card = families().of_medium(MEDIUM).get(kind)
        if card is None and _is_clear(source.config):
            return no_card(source, kind)
        if card is not None and waves.is_heard(card):
            return wave_table(card).unheeded(waves.words_of(source.config) or source.config, source.text) if source.root else []
        return [] if card is not None and card.style == AUTO else table().unheeded(source.config, source.text)

    @model_validator(mode="after")
    def _can_be_built(self) -> Encoder:
        if self.family not in styles():
            raise ValueError(f"family is {self.family!r}, wanted one of {', '.join(styles())}")
        if self.family == AUTO and "model_type" not in self.model:
            raise ValueError("family: auto wants `model`, the encoder's own config with its model_type")
        if self.family != AUTO and self.layer is not None:
            raise ValueError(f"layer is for encoders that listen to samples, and family is {self.family!r}")
        check_layer(self.layer, self.num_hidden_layers)
        if self.hears_samples and not self.facts().get("conv_stride"):
            raise ValueError("the strides of the convolutions are not known: set `with: {conv_stride: [...]}`, one for each")
        if self.hears_samples and "num_attention_heads" not in self.facts():
            raise ValueError(f"the heads of a width of {self.hidden_size} are not known: set `with: {{num_attention_heads: ...}}`")
        return self

    @property
    def card(self) -> TowerCard:
        """What its family says of it."""
        return card_of(self.family, self.model)

    def facts(self) -> dict[str, Any]:
        """The config that transformers builds the encoder from."""
        card = self.card
        if self.family != AUTO:
            return {**{key: getattr(self, word) for word, key in card.settings.items()}, **card.fixed}
        set_here = self.model_fields_set if self.hears_samples else frozenset()
        stated = {key: getattr(self, word) for word in WORDS if (key := card.names.get(word, word)) in self.model or word in set_here}
        strides = {"conv_stride": list(self.conv_stride)} if self.conv_stride else {}
        return {**self.model, **stated, **strides}

    @property
    def hears_samples(self) -> bool:
        """It hears samples, and a card says how it is run."""
        return self.family == AUTO and waves.is_heard(self.card)

    @property
    def channels(self) -> int | None:
        """Width of what the convolutions give."""
        return int(self.model["conv_dim"][-1]) if self.hears_samples else None

    @property
    def frames(self) -> int:
        """Number of frames in a window."""
        return 2 * self.positions

    @property
    def tokens(self) -> int | None:
        """Number of vectors per window, or of so many samples; None where the sound may have any length."""
        if self.hears_samples and self.samples is not None:
            return waves.frames(self.samples, self.facts()) or None
        return None if self.family == AUTO else self.positions // self.joins

    @property
    def joins(self) -> int:
        """How many places become one vector in the end."""
        return int(self.card.more.get("joins", 1))

    @property
    def tells_frames(self) -> bool:
        """It hears features, and which of their frames are made of sound."""
        return bool(self.card.more.get("masked"))

    def multiples(self) -> Mapping[str, int]:
        """Exports are traced with sounds that give several vectors."""
        return {"samples": waves.least_samples(self.facts())} if self.hears_samples else {}

    def ports(self) -> Ports:
        """Features or samples in, vectors out."""
        if self.hears_samples:
            wave = port("float[batch samples]", space=Space.of("wave", sample_rate_hz=self.sample_rate_hz))
            conv = dict.fromkeys(("conv_features", "normed"), "float[batch tokens channels]")
            return Ports.of(
                {"samples": wave, "mask": "optional[bool[batch samples]]", "spans": "optional[bool[batch tokens]]"},
                {"tokens": self._vectors(), **conv, "frame_mask": "bool[batch tokens]"},
            )
        if self.family == AUTO:
            return Ports.of({"samples": "float[batch samples]"}, {"tokens": "float[batch tokens hidden_size]"})
        features = port("float[batch mels frames]", space=mel_space(self.model_dump()))
        mask = {"mask": "optional[bool[batch frames]]"} if self.tells_frames else {}
        told = {"frame_mask": "bool[batch tokens]"} if self.tells_frames else {}
        return Ports.of({"features": features, **mask}, {"tokens": "float[batch tokens hidden_size]", **told})

    def _vectors(self) -> Port:
        """The tokens, with the model and the layer that gives them."""
        depth, facts = self.num_hidden_layers, self.facts()
        is_normed = self.layer is None and bool(facts.get("do_stable_layer_norm"))
        layer = "last" if is_normed else depth if self.layer is None else self.layer % (depth + 1)
        return port("float[batch tokens hidden_size]", space=features_space(self.identity, layer))

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """The heads must share the width evenly, and a sound of fixed length must give a vector."""
        yield from uneven_heads(node.name, self.hidden_size, self.num_attention_heads)
        if self.hears_samples and self.samples is not None and self.samples < (least := waves.least_samples(self.facts())):
            found = f"{node.name} hears {self.samples} samples, and makes its first vector of {least}"
            yield "config-mismatch", found, "give longer sounds"
        if self.hears_samples and node.wired.get("spans") and not waves.has_vector(self.facts()):
            found = f"{node.name} is given spans, and its source has no vector that stands for masked tokens"
            yield "config-mismatch", found, "leave the wire out, or name a checkpoint that was trained with spans"

    def parameters(self) -> int | None:
        """Count the encoder; None where that takes building it."""
        if self.card.count is None:
            return counted(self.facts())
        return self.card.count(self.facts() if self.hears_samples else self.model_dump())


WAVES = "wav2vec2"  # model type of a file of weights alone that holds such an encoder


def _heard(source: Source, card: TowerCard) -> dict[str, Any]:
    """The fields of an encoder that hears samples."""
    model = waves.facts_of(source, card)
    stated = {word: model[word] for word in WORDS if word in model}
    heard = taking.samples_config(source) if taking.written(source) is not None else {}
    rate = heard.get("sample_rate_hz", 16_000)
    return {"family": AUTO, "model": model, **stated, "sample_rate_hz": rate, "identity": model_identity(source)}


def wave_table(card: TowerCard) -> Table:
    """What the config of such an encoder states, in transformers' words or in fairseq's -> what becomes of it."""
    obeyed = {*card.defaults, *waves.WORDS, *waves.CONVOLUTIONS, "extractor_mode", "add_adapter", "normalize"}
    return tower_table(obeyed, {*card.idle, *waves.IDLE}, {**waves.STILL, **card.more.get("still", {})})


def _is_clear(config: Mapping[str, Any]) -> bool:
    """A config of which no card speaks says by itself what its encoder gives: its width, and that it listens to samples."""
    kind = str(config.get("model_type", ""))
    is_one = bool(kind) and families().of(kind) is None and "hidden_size" in config
    return is_one and all(key in config for key in CONVOLUTIONS)


@hookimpl
def register_components(register: Callable[[Any], None]) -> None:
    """Offer the components of this plugin."""
    for subject in (Preprocess, Windows, Samples, Encoder, *ctc.COMPONENTS, *pretraining.COMPONENTS):
        register(subject)


@hookimpl
def register_recorded_configs(register: Callable[[str, Any], None]) -> None:
    """Offer the published sizes of wav2vec 2.0, in fairseq's words, also under the names that checkpoints have on the hub."""
    presets = Path(__file__).parent / "presets"
    for folder in sorted(presets.iterdir()):
        register(f"preset:{folder.name}", folder)
    for source, name in ON_THE_HUB.items():
        register(f"facebook/{source}", presets / name)
