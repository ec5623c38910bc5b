"""Vocoders that speak units: a table of their vectors, how long each lasts, and a HiFi-GAN (arXiv 2104.00355, 2010.05646).

What a config states of them, in the words of fairseq's `CodeGenerator`, and what the shapes of its tensors say where there is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from modelgraft import Config, Ports, Space, component, port
from modelgraft_plugins.stated import ABOUT, Table, told
from modelgraft_plugins.vocoder.reach import Reach

if TYPE_CHECKING:
    from modelgraft.plugin import SolvedNode, Source

# our field -> where a config has it, and what it means where the config is silent
WORDS: Mapping[str, tuple[str, Any]] = {
    "units": ("num_embeddings", None), "width": ("embedding_dim", None), "channels": ("upsample_initial_channel", None),
    "rates": ("upsample_rates", None), "kernels": ("upsample_kernel_sizes", None), "block_kernels": ("resblock_kernel_sizes", None),
    "block_dilations": ("resblock_dilation_sizes", None), "hidden": ("dur_predictor_params.var_pred_hidden_dim", None),
    "sample_rate_hz": ("sampling_rate", None), "model": ("model", None), "layer": ("layer", None),
}  # fmt: skip
# what a published training says of itself: its data, its losses, and the bands that it compares
IDLE = frozenset({
    "num_gpus", "batch_size", "learning_rate", "adam_b1", "adam_b2", "lr_decay", "seed", "segment_size", "code_hop_size", "num_mels",
    "num_freq", "n_fft", "hop_size", "win_size", "fmin", "fmax", "fmax_for_loss", "num_workers", "dist_config", "dur_prediction_weight",
    "input_training_file", "input_validation_file", "multispkr_path", "cpc_code_file", "audio_root_path", "lambda_commit",
})  # fmt: skip
STILL: Mapping[str, tuple[Any, ...]] = {  # voices, pitch and further inputs: at these values there are none
    "resblock": ("1", 1), "multispkr": (False, "", 0), "num_speakers": (0, 1, 200), "embedder_params": ({}, False), "embedder_dim": (256,),
    "f0": (False,), "f0_quant_num_bin": (0,), "f0_normalize": (False,), "f0_feats": (False,), "f0_median": (False,),
}  # fmt: skip
TABLE = Table(
    "config.json",
    frozenset({"num_embeddings", "embedding_dim", "model_in_dim", "dur_predictor_params", *(path for path, _ in WORDS.values())}),
    ABOUT | IDLE,
    STILL,
)
INSIDE = {"encoder_embed_dim", "var_pred_hidden_dim", "var_pred_kernel_size", "var_pred_dropout"}  # of dur_predictor_params
MODEL_TYPE = "unit_hifigan"
KERNEL = 3  # of both convolutions of the predictor: the second is padded by one, so that no other gives a number for each unit
GENERATOR = "generator"  # what the tensors of the published file stand under


def unit_space(units: int | None, model: str | None, layer: int | str | None) -> Space:
    """The space of units, as units/kmeans gives them: how many there are, and of which layer of which model. None: not known."""
    return Space.of("units", clusters=units, model=model, layer=layer)


class UnitVocoder(Config):
    """What is read of a vocoder of units; not a component itself."""

    units: int = Field(1000, gt=0, description="how many units there are")
    width: int = Field(128, gt=0, description="numbers of a vector that stands for a unit")
    hidden: int = Field(128, gt=0, description="width of what tells how long a unit lasts")
    model: str | None = Field(None, description="of which model's features they are clusters; None: any")
    layer: int | Literal["last"] | None = Field(None, description="of which of its layers; None: any")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read config.json in the words of fairseq, or the shapes of the published file."""
        found = told(source.root, WORDS) if source.root else {}
        _refuse_others(source)
        return {name: value for name, value in {**_shaped(source), **found}.items() if name in cls.model_fields}

    @classmethod
    def unheeded(cls, source: Source) -> Iterable[tuple[str, ...]]:
        """What the config states and is not done; and a vocoder that does not say whose units it speaks."""
        return [*TABLE.unheeded(source.root, source.text), *_unsaid(source, cls.model_fields)]

    @property
    def space(self) -> Space:
        """The space of its units."""
        return unit_space(self.units, self.model, self.layer)

    @property
    def count(self) -> tuple[int, int]:
        """Parameters of the table, and of what tells how long units last: two convolutions with a norm behind each, and a line."""
        narrow = self.hidden
        predictor = KERNEL * narrow * (self.width + narrow) + 2 * narrow + 4 * narrow + narrow + 1
        return self.units * self.width, predictor


@component("vocoder/durations", kind="adapter", module="modelgraft_plugins.vocoder.speaking:Durations", exportable=True)
class Durations(UnitVocoder):
    """Tell how many frames each unit lasts, by the units around it.

    log_durations  what is learned: the logarithm of one frame more;  durations  that in whole frames, at least one, 0 where no unit is
    Of the same file as vocoder/unit_hifigan, whose port `durations` takes them under `durations: given`; it has this inside as well.
    """

    def ports(self) -> Ports:
        """Units in, -1 behind the end of shorter rows; frames out."""
        units = port("int64[batch runs]", space=self.space)
        return Ports.of({"units": units}, {"durations": "int64[batch runs]", "log_durations": "float[batch runs]"})

    def parameters(self) -> int:
        """The table and the predictor."""
        return sum(self.count)


@component(
    "vocoder/unit_hifigan",
    kind="generator",
    module="modelgraft_plugins.vocoder.speaking:UnitHifiGan",
    loop="modelgraft_plugins.vocoder.voicing:Voicing",
    exportable=True,
    keywords=("speech", "code", "units"),
)
class UnitHifiGan(UnitVocoder):
    """Speak units: each is a vector for as many frames as it lasts, of which a HiFi-GAN makes samples.

    durations  predicted: as its own predictor tells;  given: as the port `durations` says;  one: a frame for each unit
    chunk_s    of a longer sound, so much is made at a time and handed on as the event `piece`; each looks as far beyond its ends as the
               sound depends on what is there, so that the pieces joined are the sound. 0: all at once
    follows    a language model that writes its units as `<12>` between `<sosp>` and `<eosp>`: once the voice is loaded, a piece is made as
               soon as so much of it is written that nothing can change it any more. What is made, and the sound, stay the same
    Units below 0 are none, as at the end of shorter rows of a batch.
    """

    channels: int = Field(512, gt=0, description="channels before the first transposed convolution")
    rates: tuple[int, ...] = Field((5, 4, 4, 2, 2), min_length=1, description="samples that each transposed convolution makes of one")
    kernels: tuple[int, ...] = Field((11, 8, 8, 4, 4), min_length=1, description="widths of the transposed convolutions")
    block_kernels: tuple[int, ...] = Field((3, 7, 11), min_length=1, description="widths of the residual blocks behind each")
    block_dilations: tuple[tuple[int, ...], ...] = Field(((1, 3, 5),) * 3, description="steps between what each of them looks at")
    sample_rate_hz: int = Field(16_000, gt=0, le=1_000_000)
    durations: Literal["predicted", "given", "one"] = Field("predicted", description="how long units last")
    follows: str | None = Field(None, description="node whose text is spoken while it is written, in pieces; None: the units come at once")
    chunk_s: float = Field(0.0, ge=0, description="seconds of sound that are made at a time; 0: all")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Also whether it has a predictor."""
        found = super().from_source(source)
        return found if _has_predictor(source) else {**found, "durations": "one"}

    @model_validator(mode="after")
    def _can_be_built(self) -> UnitHifiGan:
        if min((*self.rates, *self.kernels, *self.block_kernels, *(one for row in self.block_dilations for one in row))) < 1:
            raise ValueError("rates, kernels and dilations are numbers from 1 on")
        if len(self.rates) != len(self.kernels):
            raise ValueError(f"there are {len(self.rates)} rates and {len(self.kernels)} kernels, wanted a kernel for each rate")
        if len(self.block_kernels) != len(self.block_dilations):
            found = f"{len(self.block_kernels)} block_kernels and {len(self.block_dilations)} block_dilations"
            raise ValueError(f"there are {found}, wanted dilations for each kernel")
        if even := [kernel for kernel in self.block_kernels if kernel % 2 == 0]:
            raise ValueError(f"block_kernels has {even[0]}: a residual block with an even kernel gives fewer samples than it is added to")
        if self.channels % 2 ** len(self.rates):
            raise ValueError(f"channels is {self.channels}, which cannot be halved {len(self.rates)} times: take a multiple")
        if self.follows and (not self.chunk_s or self.durations == "given"):
            raise ValueError(
                f"follows: {self.follows} speaks in pieces of a length, with durations of its own: set chunk_s, and not durations"
            )
        if short := [f"{kernel} at {rate}" for rate, kernel in zip(self.rates, self.kernels, strict=True) if kernel < rate]:
            raise ValueError(f"kernels must be at least as wide as their rates: found {', '.join(short)}")
        return self

    @property
    def reach(self) -> Reach:
        """Which frames a stretch of sound is made of."""
        return Reach(self.rates, self.kernels, self.block_kernels, self.block_dilations)

    @property
    def made(self) -> str:
        """How many samples frames make, as an axis."""
        return f"{self.reach.hop}*frames" + (f"+{self.reach.beyond}" if self.reach.beyond else "")

    def ports(self) -> Ports:
        """Units in; a sound, its samples and how long each unit lasts out."""
        units: dict[str, Any] = {"units": port("int64[batch runs]", space=self.space)}
        if self.durations == "given":
            units["durations"] = port("int64[batch runs]", doc="frames that each unit lasts")
        sound = port("audio", space=Space.of("sound", sample_rate_hz=self.sample_rate_hz))
        wave = port("float[batch samples]", space=Space.of("wave", sample_rate_hz=self.sample_rate_hz), doc="0 behind the end of a sound")
        lasting = {"durations": port("int64[batch runs]", doc="frames of each unit, 0 where no unit is")}
        logs = {"log_durations": port("float[batch runs]", doc="as they are predicted")} if self.durations == "predicted" else {}
        return Ports.of(units, {"audio": sound, "wave": wave, **lasting, **logs})

    def parts(self) -> Mapping[str, Ports]:
        """The table, the predictor where it is asked, and the HiFi-GAN."""
        vectors, frames = "float[batch runs width]", "float[batch frames width]"
        found = {
            "embed": Ports.of({"units": "int64[batch runs]"}, {"vectors": vectors}),
            "generator": Ports.of({"frames": frames}, {"wave": f"float[batch {self.made}]"}),
        }
        predictor = {"predictor": Ports.of({"vectors": vectors}, {"log_durations": "float[batch runs]"})}
        return {**found, **predictor} if self.durations == "predicted" else found

    def parameters(self) -> int:
        """The table, the predictor, and the convolutions: one before, one behind, and for each rate a transposed one with its blocks."""
        table, predictor = self.count
        found, wide = 7 * self.width * self.channels + self.channels, self.channels
        for kernel in self.kernels:
            half = wide // 2
            found += kernel * wide * half + half
            found += sum(
                2 * len(row) * (size * half + 1) * half for size, row in zip(self.block_kernels, self.block_dilations, strict=True)
            )
            wide = half
        return table + found + 7 * wide + 1 + predictor * (self.durations == "predicted")

    def export_facts(self) -> Mapping[str, Any]:
        """Sizes: how long a piece is changes no graph."""
        left_out = {"chunk_s", "follows", "model", "layer", "sample_rate_hz", "durations"}
        return {name: value for name, value in self.model_dump(mode="json").items() if name not in left_out}

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """A predictor that the source does not have."""
        if self.durations == "predicted" and node.source is not None and not _has_predictor(node.source):
            found = f"{node.name} is to predict durations, and {node.source.text} has no predictor"
            yield "config-mismatch", found, "wire them and set durations: given, or set durations: one"


def _has_predictor(source: Source) -> bool:
    """Its tensors say so; without them its config."""
    if shapes := source.tensor_shapes():
        return "dur_predictor.proj.weight" in shapes
    return bool(source.root.get("dur_predictor_params")) if source.root else True


def _shaped(source: Source) -> dict[str, Any]:
    """What the shapes of the tensors say; rates and dilations they do not."""
    shapes = source.tensor_shapes()
    if not shapes:
        return {}
    if not {"dict.weight", "conv_pre.bias"} <= shapes.keys():
        raise ValueError(f"{source.text} holds no vocoder of units: it has no dict.weight and conv_pre")
    (units, width), (channels,) = shapes["dict.weight"], shapes["conv_pre.bias"]
    found: dict[str, Any] = {"units": units, "width": width, "channels": channels}
    ups = [shape[-1] for name, shape in _numbered(shapes, "ups.{}.weight_v")]
    found["kernels"] = tuple(ups)
    blocks = [shape[-1] for _, shape in _numbered(shapes, "resblocks.{}.convs1.0.weight_v")]
    found["block_kernels"] = tuple(blocks[: len(blocks) // len(ups)]) if ups else ()
    if narrow := shapes.get("dur_predictor.proj.weight"):
        found["hidden"] = narrow[1]
    return found


def _numbered(shapes: Mapping[str, tuple[int, ...]], name: str) -> Iterable[tuple[str, tuple[int, ...]]]:
    number = 0
    while (key := name.format(number)) in shapes:
        yield key, shapes[key]
        number += 1


def _refuse_others(source: Source) -> None:
    """Raise ValueError for the config of another model, and for what a vocoder of units may have and this has not."""
    root, inside = source.root, source.root.get("dur_predictor_params") or {}
    if not root:
        return
    if root.get("model_type") not in (None, MODEL_TYPE) or not {"upsample_rates", "num_embeddings"} <= root.keys():
        kind = f"model_type {root['model_type']!r}" if root.get("model_type") else "no upsample_rates and num_embeddings"
        raise ValueError(f"{source.text} is no vocoder of units: its config.json has {kind}")
    for key, value in TABLE.over({key: root[key] for key in STILL if key in root}).items():
        raise ValueError(f"the config of {source.text} states {key}: {value!r}, and voices, pitch and further inputs are not served")
    width, inner, seen = root["embedding_dim"], root.get("model_in_dim", 80), inside.get("encoder_embed_dim", root["embedding_dim"])
    if width not in (inner, None) or seen != width:
        raise ValueError(f"{source.text} has vectors of {width} numbers, a HiFi-GAN that takes {inner}, and a predictor that takes {seen}")
    if inside and inside.get("var_pred_kernel_size") != KERNEL:
        found = f"var_pred_kernel_size is {inside.get('var_pred_kernel_size')!r}"
        raise ValueError(
            f"{found} in {source.text}, and only {KERNEL} gives a number for each unit: the second convolution is padded by one"
        )
    if unknown := sorted(set(inside) - INSIDE):
        raise ValueError(
            f"dur_predictor_params of {source.text} has {', '.join(unknown)}, which is not known; known: {', '.join(sorted(INSIDE))}"
        )


def _unsaid(source: Source, fields: Iterable[str]) -> Iterable[tuple[str, ...]]:
    """What a file does not say and is taken on trust."""
    if not source.root and source.tensor_shapes() and "rates" in fields:
        found = f"{source.text} has no config.json beside it, so that its rates are the usual 5 4 4 2 2, its dilations 1 3 5"
        yield found, "name the folder that holds both, or set rates and block_dilations", "rates"
    if source.root.get("layer") is None:
        found = f"{source.text} does not say of which layer's features its units are clusters: those of any are taken"
        yield found, "set `layer` of the node", "layer"


COMPONENTS = (Durations, UnitHifiGan)
PRESET = "unit-hifigan-mhubert-l11-km1000"  # mhubert_vp_en_es_fr_it3_400k_layer11_km1000_lj of fairseq
