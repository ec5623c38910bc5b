"""Discrete units of speech: clusters of features, and their masked prediction (arXiv 2106.07447). See README.md beside this file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from modelgraft import Config, Ports, Space, component, hookimpl, port
from modelgraft.plugin import SpaceOf
from modelgraft_plugins.model_identity import features_space
from modelgraft_plugins.units import files
from modelgraft_plugins.units.heads import CodeHead, MaskedPrediction

if TYPE_CHECKING:
    from modelgraft.plugin import Source


@component("units/mfcc", kind="preprocess", load="modelgraft_plugins.units.mfcc:load")
class Mfcc(Config):
    """Turn samples into mel-frequency cepstra with their derivatives: 39 numbers each hundredth of a second, as Kaldi has them.

    From their clusters HuBERT learns in its first iteration. What the mask leaves out at the end of a sound is no part of it.
    """

    sample_rate_hz: int = Field(16_000, gt=0, le=1_000_000, description="samples per second")
    coefficients: int = Field(13, gt=0, le=1024, description="cepstra of a frame")
    mels: int = Field(23, gt=0, le=1024, description="frequency bands that they are made of")
    window_ms: int = Field(25, gt=0, le=10_000, description="what one frame looks at, in milliseconds")
    hop_ms: int = Field(10, gt=0, le=10_000, description="from one frame to the next, in milliseconds")
    use_energy: bool = Field(False, description="the first number is the energy of the frame")
    derivatives: int = Field(2, ge=0, le=8, description="slopes, slopes of slopes, ... over five frames")

    @model_validator(mode="after")
    def _can_be(self) -> Mfcc:
        if self.coefficients > self.mels:
            raise ValueError(f"coefficients is {self.coefficients}, more than the {self.mels} mels that they are made of")
        if self.window < 2 or self.hop < 1:
            raise ValueError(f"a window of {self.window_ms} ms and steps of {self.hop_ms} ms are no samples at {self.sample_rate_hz} Hz")
        return self

    @property
    def window(self) -> int:
        """Samples that one frame looks at."""
        return self.sample_rate_hz * self.window_ms // 1000

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return self.sample_rate_hz * self.hop_ms // 1000

    @property
    def width(self) -> int:
        """Numbers of a frame."""
        return self.coefficients * (1 + self.derivatives)

    @property
    def identity(self) -> str:
        """What the numbers are, in words that tell them from others."""
        energy = " with energy" if self.use_energy else ""
        numbers = f"{self.coefficients} of {self.mels} mels{energy}, {self.derivatives} derivatives"
        return f"Kaldi's MFCC: {numbers}, {self.window_ms}/{self.hop_ms} ms at {self.sample_rate_hz} Hz"

    def ports(self) -> Ports:
        """Samples, and where there are some, in; a row of numbers for each frame out."""
        wave = port("float[batch samples]", space=Space.of("wave", sample_rate_hz=self.sample_rate_hz))
        features = port("float[batch frames width]", space=features_space(self.identity, 0))
        return Ports.of({"samples": wave, "mask": "optional[bool[batch samples]]"}, {"features": features, "mask": "bool[batch frames]"})


@component("units/kmeans", kind="encoder", module="modelgraft_plugins.units.modules:Kmeans", exportable=True)
class Kmeans(Config):
    """Give each frame the number of the centre that its features are nearest to: a discrete unit of speech.

    The centres come from a file that `modelgraft units fit` or `modelgraft units convert` wrote. It says of which layer of which
    model the features were, and features of others are refused. A frame that the mask leaves out has the unit -1.
    """

    clusters: int = Field(gt=0, description="how many centres there are, each a unit")
    width: int = Field(gt=0, description="numbers of a frame")
    books: int = Field(1, gt=0, description="parts that a frame is cut into, each with centres of its own: one unit for each part")
    model: str | None = Field(None, description="whose features they were fitted on; None: any are taken")
    layer: int | Literal["last"] | None = Field(None, description="of which layer, last: behind the last norm; None: any are taken")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the shape of the centres, and what they were fitted on."""
        return files.centres_config(source)

    @classmethod
    def unheeded(cls, source: Source) -> Iterable[tuple[str, ...]]:
        """Centres that do not say what they were fitted on go with any features."""
        return files.unsaid(source)

    @model_validator(mode="after")
    def _can_be(self) -> Kmeans:
        if self.width % self.books:
            raise ValueError(f"width is {self.width}, which {self.books} books do not divide")
        return self

    def ports(self) -> Ports:
        """Features in, and where there are some; a unit, or one of each book, for each frame out."""
        features = port("float[batch frames width]", space=features_space(self.model, self.layer))
        axes = "batch frames" if self.books == 1 else "batch frames books"
        units = port(f"int64[{axes}]", space=Space.of("units", clusters=self.clusters, model=self.model, layer=self.layer))
        return Ports.of({"features": features, "mask": "optional[bool[batch frames]]"}, {"units": units})

    def parameters(self) -> int:
        """The centres."""
        return self.clusters * self.width


@component("units/dedup", kind="preprocess", load="modelgraft_plugins.units.runs:load", cache=False)
class Dedup(Config):
    """Write equal units in a row once, and how many frames each lasts, as language models and vocoders take them.

    Units below 0 are none. Shorter rows of a batch are filled up with the unit -1 that lasts 0 frames.
    """

    space: Annotated[Space | None, SpaceOf("units")] = Field(None, description="whose units they are; None: that of the wire")

    def ports(self) -> Ports:
        """A unit for each frame in; the units in their order and how long each lasts out."""
        runs = port("int64[batch runs]", space=self.space)
        return Ports.of({"units": port("int64[batch frames]", space=self.space)}, {"units": runs, "durations": "int64[batch runs]"})


@component("units/pieces", kind="preprocess", load="modelgraft_plugins.units.pieces:pieces", cache=False)
class Pieces(Config):
    """Cut long sounds into pieces that are heard each by itself, as published quantisers do: attention takes memory by the square.

    What follows, up to units/join, runs for the pieces. A last piece of which no vector would be made is left out; a sound that is
    shorter than a piece is one.
    """

    seconds: float = Field(100.0, gt=0, description="how long a piece is")
    sample_rate_hz: int = Field(16_000, gt=0, le=1_000_000)
    least_samples: int = Field(400, gt=0, description="the fewest that an encoder makes a vector of")

    def ports(self) -> Ports:
        """Samples, and where there are some, in; those of each piece out."""
        wave = Space.of("wave", sample_rate_hz=self.sample_rate_hz)
        taken = {"samples": port("float[batch samples]", space=wave), "mask": port("optional[bool[batch samples]]")}
        given = {"samples": port("float[batch piece]", space=wave, several="pieces"), "mask": port("bool[batch piece]", several="pieces")}
        return Ports.of(taken, given)


@component("units/join", kind="preprocess", load="modelgraft_plugins.units.pieces:join", cache=False)
class Join(Config):
    """Put the units of the pieces of a sound behind each other. Units below 0 are none, as where a last piece was filled up.

    A record without a sound has none at all.
    """

    space: Annotated[Space | None, SpaceOf("units")] = Field(None, description="whose units they are; None: that of the wire")

    def ports(self) -> Ports:
        """The units of each piece in, those of the sound out."""
        pieces = port("int64[batch frames]", space=self.space, several="*")
        return Ports.of({"units": pieces}, {"units": port("int64[batch joined]", space=self.space)})


PRESETS = (
    "hubert-base",
    "hubert-large",
    "hubert-xlarge",
    "hubert-base-l9-km500",
    "hubert-mfcc-km100",
    "mhubert-base",
    "mhubert-base-l11-km1000",
)
ON_THE_HUB = {  # a checkpoint of facebook's -> its sizes, that of the base model as transformers writes its config
    "hubert-base-ls960": "hubert-base-ls960",
    "hubert-large-ll60k": "hubert-large",
    "hubert-large-ls960-ft": "hubert-large",
    "hubert-xlarge-ll60k": "hubert-xlarge",
    "hubert-xlarge-ls960-ft": "hubert-xlarge",
}


@hookimpl
def register_recorded_configs(register: Callable[[str, Any], None]) -> None:
    """Offer the published sizes: of HuBERT in fairseq's words, and of the centres that were published with it."""
    presets = Path(__file__).parent / "presets"
    for name in PRESETS:
        register(f"preset:{name}", presets / name)
    for source, name in ON_THE_HUB.items():
        register(f"facebook/{source}", presets / name)


@hookimpl
def register_commands(app: Any) -> None:  # Any: a typer app, which is imported where there is a command line
    """Add `modelgraft units`."""
    from modelgraft_plugins.units.command import group

    app.add_typer(group(), name="units")


@hookimpl
def register_components(register: Callable[[Any], None]) -> None:
    """Offer the components of this plugin."""
    for subject in (Mfcc, Kmeans, Dedup, Pieces, Join, CodeHead, MaskedPrediction):
        register(subject)
