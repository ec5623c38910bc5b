"""Vocoders and codecs: sound out of mel bands, units or codes. See README.md beside this file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, model_validator

from modelgraft import Config, Ports, Space, component, hookimpl, port
from modelgraft.plugin import SpaceOf
from modelgraft_plugins.stated import Table, tower_table
from modelgraft_plugins.vocoder import codecs, units
from modelgraft_plugins.vocoder.reach import Reach
from modelgraft_plugins.vocoder_sizes import hifigan_size

if TYPE_CHECKING:
    from modelgraft.plugin import SolvedNode, Source

PRESETS = Path(__file__).parent / "presets"
ON_THE_HUB = {"microsoft/speecht5_hifigan": "speecht5-hifigan"}
KIND = "speecht5_hifigan"  # the model_type that transformers gives it
# our field -> its key in configs of transformers
WORDS: Mapping[str, str] = {
    "mels": "model_in_dim", "channels": "upsample_initial_channel", "rates": "upsample_rates", "kernels": "upsample_kernel_sizes",
    "block_kernels": "resblock_kernel_sizes", "block_dilations": "resblock_dilation_sizes", "slope": "leaky_relu_slope",
    "normalize": "normalize_before", "sample_rate_hz": "sampling_rate",
}  # fmt: skip
# and in those of the published code, whose generators do not norm what they are given
OFFICIAL: Mapping[str, str] = {**WORDS, "mels": "num_mels"}
OF_THE_RECIPE = frozenset({  # of the training of the published code, and of how its mel bands are made
    "num_gpus", "batch_size", "learning_rate", "adam_b1", "adam_b2", "lr_decay", "seed", "segment_size", "num_freq", "n_fft", "hop_size",
    "win_size", "fmin", "fmax", "fmax_for_loss", "num_workers", "dist_config",
})  # fmt: skip
SAMPLES = "float[batch samples]"


def wave_space(rate_hz: int | None) -> Space:
    """The space of samples at a rate; None: any."""
    return Space.of("wave", sample_rate_hz=rate_hz)


def table() -> Table:
    """What a config states -> what becomes of it: of transformers, and of the published code."""
    return tower_table({*WORDS.values(), *OFFICIAL.values()}, OF_THE_RECIPE, {"resblock": ("1", 1)})


@component("vocoder/hifigan", kind="generator", module="modelgraft_plugins.vocoder.hifigan:HifiGan", exportable=True)
class HifiGan(Config):
    """Turn log-mel bands into samples of a sound: a stack of transposed convolutions, each behind residual blocks (arXiv 2010.05646).

    rates, kernels                    of the transposed convolutions; each halves the channels
    block_kernels, block_dilations    of the residual blocks behind each, whose mean is taken
    normalize                         what comes in is normed by a mean and a scale that the checkpoint holds
    A folder in the layout of transformers (SpeechT5HifiGan), or a generator of the published code with its config.json.
    """

    mels: int = Field(80, gt=0, description="bands of a frame")
    channels: int = Field(512, gt=0, description="channels before the first transposed convolution")
    rates: tuple[int, ...] = Field((4, 4, 4, 4), min_length=1, description="how many samples each transposed convolution makes of one")
    kernels: tuple[int, ...] = Field((8, 8, 8, 8), min_length=1)
    block_kernels: tuple[int, ...] = Field((3, 7, 11), min_length=1)
    block_dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    slope: float = 0.1
    normalize: bool = True
    sample_rate_hz: int = Field(16_000, gt=0)

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read a config of transformers, or of the published code."""
        config = source.config
        kind = config.get("model_type")
        if kind not in (KIND, None) or (config and not {"upsample_rates", "upsample_kernel_sizes"} <= config.keys() and kind is None):
            raise ValueError(f"vocoder/hifigan serves {KIND} and configs of the published code, not {source.text} (model_type {kind!r})")
        if kind is None and str(config.get("resblock", "1")) != "1":
            raise ValueError(f"the config states resblock: {config['resblock']!r}, and blocks of two rows of convolutions are served: '1'")
        if kind is None:
            return {"normalize": False, "sample_rate_hz": 22_050, **_stated(config, OFFICIAL)}
        return _stated(config, WORDS)

    @classmethod
    def unheeded(cls, source: Source) -> list[tuple[str, str]]:
        """What the config states and is not known here."""
        return table().unheeded(source.config, source.text)

    @model_validator(mode="after")
    def _can_be_built(self) -> HifiGan:
        if len(self.rates) != len(self.kernels):
            raise ValueError(f"there are {len(self.rates)} rates and {len(self.kernels)} kernels, wanted one kernel for each rate")
        if len(self.block_kernels) != len(self.block_dilations):
            found = f"{len(self.block_kernels)} block_kernels and {len(self.block_dilations)} block_dilations"
            raise ValueError(f"there are {found}, wanted dilations for each kernel")
        if self.channels % 2 ** len(self.rates):
            raise ValueError(f"channels is {self.channels}, which cannot be halved {len(self.rates)} times: take a multiple")
        if short := [f"{kernel} at {rate}" for rate, kernel in zip(self.rates, self.kernels, strict=True) if kernel < rate]:
            raise ValueError(f"kernels must be at least as wide as their rates: found {', '.join(short)}")
        return self

    @property
    def hop(self) -> int:
        """Samples of a frame."""
        return self._reach.hop

    @property
    def beyond(self) -> int:
        """Samples beyond those of the frames."""
        return self._reach.beyond

    @property
    def _reach(self) -> Reach:
        return Reach(self.rates, self.kernels, self.block_kernels, self.block_dilations)

    def ports(self) -> Ports:
        """Frames of bands in, samples out."""
        mel = port("float[batch frames mels]", space=Space.of("mel", sample_rate_hz=self.sample_rate_hz, hop=self.hop))
        length = f"{self.hop}*frames" + (f"+{self.beyond}" if self.beyond else "")
        return Ports.of({"mel": mel}, {"samples": port(f"float[batch {length}]", space=wave_space(self.sample_rate_hz))})

    def parameters(self) -> int:
        """Count its convolutions."""
        return hifigan_size({theirs: getattr(self, ours) for ours, theirs in WORDS.items()})


def _stated(config: Mapping[str, Any], words: Mapping[str, str]) -> dict[str, Any]:
    return {ours: config[theirs] for ours, theirs in words.items() if theirs in config}


@component("vocoder/sound", kind="generator", load="modelgraft_plugins.vocoder.sounding:load", cache=False)
class Sound(Config):
    """Make sounds of samples, at the rate that they were made for.

    mask            which samples belong to the sound, where those of a batch differ in length; without it all do
    sample_rate_hz  taken from what the samples are wired to, where that says it
    seconds         the sound ends there; None: with its samples
    """

    sample_rate_hz: int | None = Field(None, gt=0, le=1_000_000, description="frames per second; None: as the wire says")
    seconds: float | None = Field(None, gt=0, description="where the sound is cut; None: nowhere")
    space: Annotated[Space | None, SpaceOf("samples")] = Field(None, description="the value space of what is wired")

    @property
    def rate_hz(self) -> int | None:
        """The rate, if it is known."""
        said = dict(self.space.facts).get("sample_rate_hz") if self.space is not None else None
        return self.sample_rate_hz or said

    def ports(self) -> Ports:
        """Samples in, sounds out."""
        sound = port("audio", space=Space.of("sound", sample_rate_hz=self.rate_hz))
        return Ports.of(
            {"samples": port(SAMPLES, space=wave_space(self.sample_rate_hz)), "mask": "optional[bool[batch samples]]"}, {"audio": sound}
        )

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """The rate must be said by someone."""
        if self.rate_hz is None:
            yield (
                "config-mismatch",
                f"{node.name} does not know at which rate its samples are heard",
                "write sample_rate_hz: 16000, or what it is",
            )


@hookimpl
def register_components(register: Callable[[object], None]) -> None:
    """Offer the components."""
    for declared in (HifiGan, Sound, *codecs.COMPONENTS, *units.COMPONENTS):
        register(declared)


@hookimpl
def register_recorded_configs(register: Callable[[str, Path], None]) -> None:
    """Offer the published sizes."""
    for source, name in {**ON_THE_HUB, **codecs.ON_THE_HUB}.items():
        register(f"preset:{name}", PRESETS / name)
        register(source, PRESETS / name)
    register(f"preset:{units.PRESET}", PRESETS / units.PRESET)
