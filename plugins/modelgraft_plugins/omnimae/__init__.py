"""OmniMAE: pictures and films rebuilt from a few of their patches (arXiv 2206.08356).

One vision transformer sees still pictures and clips. It is trained as a masked autoencoder: most patches are hidden, the encoder sees
the others, and a small decoder says the pixels of all. The parts are components of their own: what is hidden (`omnimae/mask`), the
encoder, the decoder, the pixels that are wanted (`omnimae/targets`), the loss, and a picture of what was rebuilt.

Positions are sinusoids over a fixed grid of squares. The published code resizes them to pictures of other square sizes and refuses the
rest; here pictures and clips of any height and width are taken whose patches are whole (`size`), and positions are resized by the
same bicubic filter, each slice of time by itself. A clip always has `num_frames` frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from modelgraft import Config, Ports, component, hookimpl
from modelgraft.plugin import InputError
from modelgraft_plugins.omnimae.sizes import (
    COLOURS,
    DECODER_HEADS,
    DECODER_WIDTHS,
    DECODER_WORDS,
    ENCODER_WORDS,
    HEADS,
    STEM,
    Grid,
    block_parameters,
    depth_of,
    grid_of,
    unheeded,
)
from modelgraft_plugins.widths import uneven_heads

if TYPE_CHECKING:
    from modelgraft.plugin import SolvedNode, Source

PRESETS = tuple(f"omnimae-{size}{use}" for size in ("base", "large", "huge") for use in ("", "-in1k", "-ssv2"))
RATIOS = {"image": 0.75, "video": 0.9}  # hidden in the published recipe of ViT-B; the paper's best are 0.9 and 0.95


@component("omnimae/encoder", kind="encoder", module="modelgraft_plugins.omnimae.model:Encoder", exportable=True, keywords=("eye",))
class Encoder(Grid):
    """See a still picture or a clip: a vector for each patch, and one for the whole.

    tokens  before the last norm, as the published code gives them;  pooled  the norm of their mean, which classifiers are trained on
    masked  see only the patches whose places come in `kept`: tokens, behind the last norm, for the decoder, and nothing pooled
    clips   each record is several clips or pictures, such as crops of one: pixels and results have an axis `clips` behind `batch`

    A file of weights says everything but the heads, which are those of the published models of its width.
    """

    embed_dim: PositiveInt = Field(768, description="width of the vectors")
    depth: PositiveInt = Field(12, description="number of blocks")
    num_heads: PositiveInt | None = Field(12, description="heads of the attention; no file of weights says it")
    masked: bool = Field(False, description="see a few patches alone")
    clips: bool = Field(False, description="each record is several clips")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read a config.json in the words of the published code, or the shapes of an official file."""
        shapes, grid = source.tensor_shapes(), grid_of(source)
        if source.config or not shapes:
            return {**grid, **{word: source.config[word] for word in ENCODER_WORDS if word in source.config}}
        width = shapes[STEM][0]
        return {**grid, "embed_dim": width, "depth": depth_of(shapes, "trunk.blocks."), "num_heads": HEADS.get(width)}

    @classmethod
    def unheeded(cls, source: Source) -> Iterable[tuple[str, str]]:
        """Give the keys of the config that are not known here."""
        return unheeded(source)

    @model_validator(mode="after")
    def _has_heads(self) -> Encoder:
        _refuse_unsaid("num_heads", self.num_heads, self.embed_dim, HEADS)
        if self.masked and self.clips:
            raise ValueError("masked: true takes one picture or clip of each record: leave clips out")
        return self

    def ports(self) -> Ports:
        """Pixels, and the places of the patches that are seen, in; vectors out."""
        if self.masked:
            return Ports.of({"pixels": self.pixels(), "kept": "int64[batch kept]"}, {"tokens": "float[batch kept embed_dim]"})
        before = "batch clips" if self.clips else "batch"
        outputs = {"tokens": f"float[{before} tokens embed_dim]", "pooled": f"float[{before} embed_dim]"}
        return Ports.of({"pixels": self.pixels(before)}, outputs)

    def most(self) -> Mapping[str, int]:
        """No more places than patches."""
        return {"kept": self.tokens} if self.masked else {}

    def parameters(self) -> int:
        """Count patches, blocks and the last norm; positions are fixed numbers."""
        width = self.embed_dim
        return self.values * width + width + self.depth * block_parameters(width, qkv_bias=True) + 2 * width

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """The heads must share the width evenly."""
        return uneven_heads(node.name, self.embed_dim, self.num_heads, names=("embed_dim", "num_heads"))


@component("omnimae/decoder", kind="encoder", module="modelgraft_plugins.omnimae.model:Decoder", exportable=True)
class Decoder(Grid):
    """Say of every patch, hidden or not, what its pixels are: vectors that the head turns into numbers.

    The vectors of the patches that were seen are put at their places, and one learned vector at all others.
    """

    embed_dim: PositiveInt = Field(768, description="width of the encoder's vectors")
    decoder_embed_dim: PositiveInt = Field(384, description="width of the decoder")
    decoder_depth: PositiveInt = Field(4, description="number of blocks")
    decoder_num_heads: PositiveInt | None = Field(DECODER_HEADS, description="heads of the attention; no file of weights says it")
    decoder_qkv_bias: bool = Field(False, description="queries, keys and values have a bias; published files have none, the files say it")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read a config.json in the words of the published code, or the shapes of an official file."""
        shapes, grid, inner = source.tensor_shapes(), grid_of(source), "trunk.decoder.decoder_blocks."
        if shapes and "trunk.decoder.decoder_embed.weight" not in shapes:
            raise ValueError(f"{source.text} has no decoder: it was made for classes; name a pre-trained OmniMAE")
        bias = {"decoder_qkv_bias": f"{inner}0.attn.qkv.bias" in shapes} if shapes else {}
        if source.config or not shapes:
            words = ("embed_dim", *DECODER_WORDS, "decoder_qkv_bias")
            return {**grid, **{word: source.config[word] for word in words if word in source.config}, **bias}
        narrow, wide = shapes["trunk.decoder.decoder_embed.weight"]
        heads = DECODER_HEADS if narrow in DECODER_WIDTHS else None
        found = {"embed_dim": wide, "decoder_embed_dim": narrow, "decoder_depth": depth_of(shapes, inner), "decoder_num_heads": heads}
        return {**grid, **found, **bias}

    @classmethod
    def unheeded(cls, source: Source) -> Iterable[tuple[str, str]]:
        """Give the keys of the config that are not known here."""
        return unheeded(source)

    @model_validator(mode="after")
    def _has_heads(self) -> Decoder:
        published = dict.fromkeys(DECODER_WIDTHS, DECODER_HEADS)
        _refuse_unsaid("decoder_num_heads", self.decoder_num_heads, self.decoder_embed_dim, published)
        return self

    def ports(self) -> Ports:
        """Vectors of what was seen, and its places, in; a vector for every patch out."""
        inputs = {"tokens": "float[batch kept embed_dim]", "kept": "int64[batch kept]"}
        return Ports.of(inputs, {"features": "float[batch tokens decoder_embed_dim]"})

    def most(self) -> Mapping[str, int]:
        """No more places than patches."""
        return {"kept": self.tokens}

    def parameters(self) -> int:
        """Count the vector of what is hidden, the way in, blocks and the last norm."""
        wide, narrow = self.embed_dim, self.decoder_embed_dim
        block = block_parameters(narrow, qkv_bias=self.decoder_qkv_bias)
        return wide + wide * narrow + narrow + self.decoder_depth * block + 2 * narrow

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """The heads must share the width evenly."""
        return uneven_heads(node.name, self.decoder_embed_dim, self.decoder_num_heads, names=("decoder_embed_dim", "decoder_num_heads"))


@component(
    "omnimae/either",
    kind="router",
    inputs={"image": "optional[float[batch image_tokens width]]", "video": "optional[float[batch video_tokens width]]"},
    outputs={"tokens": "float[batch tokens width]"},
)
def either(image: Any, video: Any) -> Any:
    """Give the vectors of whichever medium there is, of the picture where both are: as many as it has, so a batch is of one medium."""
    if image is None and video is None:
        raise InputError("there is neither a picture nor a film: give one of them")
    return video if image is None else image


class Cut(Grid):
    """The grid of a checkpoint, for what has no weights itself."""

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read how the checkpoint cuts pixels."""
        return grid_of(source)


@component("omnimae/mask", kind="preprocess", load="modelgraft_plugins.omnimae.masks:load", random=True, cache=False)
class Mask(Cut):
    """Draw which patches are hidden: as many in every record.

    ratio   the share that is hidden, rounded down to whole patches; None: 0.75 of a picture, 0.9 of a clip
    shape   random: any patches;  tube: of a clip the same patches in every slice of time, so that nothing is seen to move behind them
    draw    another number, another mask of the same picture: OmniMAE is trained on several of each

    The mask of a record is drawn by the seed of the run and by its pixels: alone and in a batch it is the same.
    An input `mask` is taken in place of one that is drawn: True where a patch is hidden, as many in every record.
    """

    ratio: float | None = Field(None, gt=0, lt=1, description="share of the patches that is hidden")
    shape: Literal["random", "tube"] = "random"
    draw: int = Field(0, ge=0, description="the number of the draw")

    @model_validator(mode="after")
    def _leaves_some(self) -> Mask:
        if not 0 < self.hidden < self.tokens:
            raise ValueError(
                f"ratio: {self.share:g} of {self.tokens} patches hides {self.hidden}: at least one must be hidden, and one seen"
            )
        return self

    @property
    def share(self) -> float:
        """The share that is hidden."""
        return self.ratio if self.ratio is not None else RATIOS[self.medium]

    @property
    def hidden(self) -> int:
        """How many patches are hidden."""
        if self.shape == "tube":
            return int(self.share * self.rows * self.columns) * self.slices
        return int(self.share * self.tokens)

    @property
    def kept(self) -> int:
        """How many patches are seen."""
        return self.tokens - self.hidden

    def ports(self) -> Ports:
        """Pixels in; where a patch is hidden, and the places of the others in rising order, out."""
        return Ports.of({"pixels": self.pixels(), "mask": f"optional[{self.mask()}]"}, {"mask": self.mask(), "kept": "int64[batch kept]"})


@component("omnimae/targets", kind="preprocess", load="modelgraft_plugins.omnimae.model:targets", cache=False, shared=True)
class Targets(Cut):
    """Give the numbers that the decoder is to say: the pixels of each patch, each colour with the mean 0 and the variance 1.

    mean, std  of each patch and colour, from 0 to 1: with them the pixels come back (`omnimae/unpatch`)
    """

    def ports(self) -> Ports:
        """Pixels in; numbers of each patch, and what they were made even with, out."""
        even = f"float[batch tokens {COLOURS}]"
        return Ports.of({"pixels": self.pixels()}, {"targets": "float[batch tokens values]", "mean": even, "std": even})


@component("omnimae/unpatch", kind="projector", load="modelgraft_plugins.omnimae.model:unpatch", cache=False, shared=True)
class Unpatch(Cut):
    """Put patches together to pixels, with the mean and the std of each patch and colour; of a still picture's frames the mean is taken."""

    def ports(self) -> Ports:
        """Numbers of each patch in, pixels out."""
        even = f"float[batch tokens {COLOURS}]"
        return Ports.of({"patches": "float[batch tokens values]", "mean": even, "std": even}, {"pixels": self.pixels()})


@component("omnimae/loss", kind="loss", module="modelgraft_plugins.omnimae.model:Loss", exportable=True)
class Loss(Config):
    """Compare what the decoder says of the hidden patches with what they are.

    loss  of each record: the mean, over its hidden patches, of the mean squared difference. The published loss is the mean over the
          hidden patches of all records, which is the mean of these because as many are hidden in every one.
    """

    def ports(self) -> Ports:
        """What is said, what is wanted, and where a patch is hidden, in; a number for each record out."""
        numbers = "float[batch tokens values]"
        return Ports.of({"patches": numbers, "targets": numbers, "mask": "bool[batch ...]"}, {"loss": "float[batch]"})


@component("omnimae/beside", kind="generator", load="modelgraft_plugins.omnimae.beside:load", cache=False)
class Beside(Cut):
    """Show side by side what was given, what of it was seen, and what was made of that.

    paste    put the patches that were seen over those that were rebuilt
    rate_hz  of a clip: 16 frames of 2.7 seconds are what OmniMAE is trained on
    """

    paste: bool = Field(True, description="what was seen is shown as it was")
    rate_hz: PositiveFloat = Field(16 / 2.7, description="video: frames per second")
    gap: int = Field(4, ge=0, le=1000, description="white pixels between them")

    def ports(self) -> Ports:
        """Pixels, rebuilt pixels and the mask in; one picture, or one film, out."""
        return Ports.of({"pixels": self.pixels(), "rebuilt": self.pixels(), "mask": self.mask()}, {self.medium: self.medium})


def _refuse_unsaid(name: str, heads: int | None, width: int, published: Mapping[int, int]) -> None:
    """Raise ValueError where nothing says how many heads there are."""
    if heads is None:
        known = ", ".join(f"{count} at {wide}" for wide, count in published.items())
        raise ValueError(f"no file of weights says {name}, and none was published of the width {width} ({known}): give it by `with`")


@hookimpl
def register_components(register: Callable[[Any], None]) -> None:
    """Offer the components of this plugin."""
    for subject in (Encoder, either, Decoder, Mask, Targets, Unpatch, Loss, Beside):
        register(subject)


@hookimpl
def register_recorded_configs(register: Callable[[str, Any], None]) -> None:
    """Offer the published sizes: the builders of the reference, in its words."""
    for name in PRESETS:
        register(f"preset:{name}", Path(__file__).parent / "presets" / name)
