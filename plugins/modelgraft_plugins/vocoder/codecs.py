"""Codecs: sounds as rows of code numbers, and back, with the models that transformers holds: EnCodec, DAC and Mimi. Light.

A frame of a sound has a number from each of several code books, each of which refines what those before it say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import ceil, log2, prod
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from modelgraft import Config, Ports, Space, component, port
from modelgraft_plugins.counted import counted
from modelgraft_plugins.model_identity import model_identity

if TYPE_CHECKING:
    from modelgraft.plugin import SolvedNode, Source

Kind = Literal["encodec", "dac", "mimi"]
KINDS: tuple[Kind, ...] = ("encodec", "dac", "mimi")
# What the configs of transformers mean where they are silent, as far as a loop has to know it. A test compares them with the library.
SILENT: Mapping[Kind, Mapping[str, Any]] = {
    "encodec": {
        "sampling_rate": 24_000, "audio_channels": 1, "upsampling_ratios": (8, 5, 4, 2), "codebook_size": 1024, "normalize": False,
        "target_bandwidths": (1.5, 3.0, 6.0, 12.0, 24.0), "chunk_length_s": None, "overlap": None,
    },
    "dac": {"sampling_rate": 16_000, "downsampling_ratios": (2, 4, 8, 8), "n_codebooks": 9, "codebook_size": 1024},
    "mimi": {
        "sampling_rate": 24_000, "audio_channels": 1, "upsampling_ratios": (8, 6, 5, 4), "codebook_size": 2048, "num_quantizers": 32,
        "num_semantic_quantizers": 1,
    },
}  # fmt: skip
ON_THE_HUB = {"facebook/encodec_24khz": "encodec-24khz", "descript/dac_16khz": "dac-16khz", "kyutai/mimi": "mimi"}


class Codec(Config):
    """What both directions are told.

    kind   which codec;  model  its config, as in config.json
    """

    kind: Kind = "encodec"
    model: dict[str, Any] = Field({}, description="the config of the codec, as in config.json")
    identity: str | None = Field(None, description="whose code numbers they are, so that those of another codec are refused")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the config of a codec."""
        kind = source.config.get("model_type")
        if kind not in KINDS:
            raise ValueError(f"codecs are {', '.join(KINDS)}, and {source.text} is of model_type {kind!r}")
        return {"kind": kind, "model": dict(source.config), "identity": model_identity(source)}

    @model_validator(mode="after")
    def _can_be_served(self) -> Codec:
        if self.said("normalize") or self.said("chunk_length_s") is not None:
            found = f"normalize: {self.said('normalize')}, chunk_length_s: {self.said('chunk_length_s')}"
            raise ValueError(f"the codec states {found}, and codecs that hear a sound whole, as it is, are served")
        return self

    def said(self, key: str) -> Any:
        """What the config states, or means where it is silent; None for what its kind does not know."""
        found = self.model.get(key)
        return SILENT[self.kind].get(key) if found is None else found

    @property
    def rate_hz(self) -> int:
        """Samples per second."""
        return int(self.said("sampling_rate"))

    @property
    def channels(self) -> int:
        """Channels of its sounds."""
        return int(self.said("audio_channels") or 1)

    @property
    def hop(self) -> int:
        """Samples of a frame. Mimi halves what its convolutions give once more."""
        if self.kind == "dac":
            return int(prod(self.said("downsampling_ratios")))
        return int(prod(self.said("upsampling_ratios"))) * (2 if self.kind == "mimi" else 1)

    @property
    def size(self) -> int:
        """Codes of a book."""
        return int(self.said("codebook_size"))

    @property
    def books(self) -> int:
        """Code books that there are."""
        if self.kind == "encodec":
            each = ceil(self.rate_hz / self.hop) * ceil(log2(self.size))  # bits of a second, of one book
            return int(1000 * self.said("target_bandwidths")[-1] // each)
        return int(self.said("n_codebooks" if self.kind == "dac" else "num_quantizers"))

    @property
    def space(self) -> Space:
        """Whose code numbers they are."""
        return Space.of("codes", codec=self.identity, kind=self.kind, size=self.size)

    @property
    def sound(self) -> Space:
        """At which rate the sounds are."""
        return Space.of("sound", sample_rate_hz=self.rate_hz)

    def facts(self, half: str) -> Mapping[str, Any]:
        """What its parameters depend on."""
        return {**self.model, "half": half}

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """A codec that came from nowhere."""
        if not self.model:
            yield "config-mismatch", f"{node.name} has no codec", "name a folder of EnCodec, DAC or Mimi with `from`"


@component(
    "codec/encode",
    kind="encoder",
    module="modelgraft_plugins.vocoder.codec_modules:Encoding",
    loop="modelgraft_plugins.vocoder.coding:Encode",
)
class Encode(Codec):
    """Write sounds as code numbers: for each frame one from each of the first code books.

    codebooks  how many of the books; None: all, and of EnCodec those of its lowest bandwidth, as its library has it
    Any sample rate and number of channels is taken; what is resampled or mixed down is said in a warning. Shorter sounds of a batch
    are filled up with the code 0, and the mask says which frames are theirs.
    """

    codebooks: int | None = Field(None, gt=0, description="code books of each frame; None: as the codec has it")

    @model_validator(mode="after")
    def _has_the_books(self) -> Encode:
        least = int(self.said("num_semantic_quantizers") or 1)
        if self.codebooks is not None and not least <= self.codebooks <= self.books:
            raise ValueError(f"codebooks is {self.codebooks}, and the codec has {self.books}: take {least} to {self.books}")
        return self

    @property
    def used(self) -> int:
        """Code books of each frame."""
        if self.codebooks is not None:
            return self.codebooks
        if self.kind != "encodec":
            return self.books
        each = ceil(self.rate_hz / self.hop) * log2(self.size)
        return max(1, int(1000 * self.said("target_bandwidths")[0] / each))

    def ports(self) -> Ports:
        """Sounds in; code numbers, and which of the frames belong to a sound, out."""
        codes = port("int64[batch used frames]", space=self.space)
        return Ports.of({"audio": "audio"}, {"codes": codes, "mask": "bool[batch frames]"})

    def parts(self) -> Mapping[str, Ports]:
        """The encoder with the code books, as one call for sounds of one length."""
        return {"encode": Ports.of({"samples": "float[batch channels samples]"}, {"codes": "int64[batch used frames]"})}

    def parameters(self) -> int | None:
        """Not known by formula: building says it and is remembered, or the headers of the checkpoint say it."""
        return counted(self.facts("encoder"))


@component(
    "codec/decode",
    kind="generator",
    module="modelgraft_plugins.vocoder.codec_modules:Decoding",
    loop="modelgraft_plugins.vocoder.coding:Decode",
)
class Decode(Codec):
    """Make sounds of code numbers: for each frame one from each of the first code books, as many as there are.

    mask  which frames belong to a sound, where those of a batch differ in length; without it all do
    A sound ends with a whole frame: it may be longer than what was encoded by less than one.
    """

    def ports(self) -> Ports:
        """Code numbers in, sounds at the rate of the codec out."""
        inputs: dict[str, Any] = {"codes": port("int64[batch codebooks frames]", space=self.space), "mask": "optional[bool[batch frames]]"}
        return Ports.of(inputs, {"audio": port("audio", space=self.sound)})

    def parts(self) -> Mapping[str, Ports]:
        """The code books with the decoder, as one call for sounds of one length."""
        return {"decode": Ports.of({"codes": "int64[batch codebooks frames]"}, {"samples": "float[batch channels samples]"})}

    def parameters(self) -> int | None:
        """Not known by formula: building says it and is remembered, or the headers of the checkpoint say it."""
        return counted(self.facts("decoder"))


COMPONENTS: tuple[type[Config], ...] = (Encode, Decode)
