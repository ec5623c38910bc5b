"""SimVLM: a convolutional stem and an encoder-decoder with one objective (arXiv 2108.10904).

A picture becomes a grid of vectors by the first three stages of a ResNet; the encoder reads them together with the beginning of a text,
in both directions, and the decoder, which is llm/seq2seq, writes the rest. The one objective is to say that rest. No code and no weights
were ever published: this is the architecture and the objective, and an ImageNet ResNet may start the stem.

What the paper leaves open is decided as follows. "The first three blocks" are the first layer, the pooling and three stages, which alone
gives 14 x 14 vectors of 224 pixels. Norms stand in front, the activation is GELU. The norms of the stem use their running means when
it answers; `conv_norm: group` has none. Padding is token 0, the end 1, the beginning of an answer 2. Pictures are normalised to -1..1.
Encoder and decoder have as many layers each as the ViT of their size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from modelgraft import Config, Ports, Space, component, hookimpl, port
from modelgraft_plugins.simvlm.sizes import (
    LAST,
    STEM_WORDS,
    STRIDE,
    TEXT_WORDS,
    Size,
    refuse_uneven,
    sides,
    stated,
    unheeded,
)
from modelgraft_plugins.widths import uneven_heads

if TYPE_CHECKING:
    from modelgraft.plugin import SolvedNode, Source

PRESETS = ("simvlm-base", "simvlm-large", "simvlm-huge")
RESNET_KEY = "layer1.0.conv1.weight"  # by which files in the names of torchvision and timm are known
Numbers = tuple[float, ...]


class Sized(Config):
    """Pictures of the trained size, or of another one.

    size  height and width of the pixels that come, where they are not image_size: multiples of 16
    """

    image_size: PositiveInt = Field(224, description="side in pixels that positions are learned for")
    size: Size | None = Field(None, description="height and width of the pixels, where they are others")

    @model_validator(mode="after")
    def _is_whole(self) -> Sized:
        refuse_uneven(self.size, self.image_size)
        return self

    @property
    def height(self) -> int:
        """Of the pixels."""
        return sides(self.size, self.image_size)[0]

    @property
    def width(self) -> int:
        """Of the pixels."""
        return sides(self.size, self.image_size)[1]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the vectors of a picture."""
        return self.height // STRIDE, self.width // STRIDE

    @property
    def patches(self) -> int:
        """Vectors of a picture."""
        return self.grid[0] * self.grid[1]

    @property
    def learned(self) -> int:
        """Rows, and columns, that positions are learned for."""
        return self.image_size // STRIDE


@component("simvlm/stem", kind="encoder", module="modelgraft_plugins.simvlm.stem:Stem", exportable=True, keywords=("eye",))
class Stem(Sized):
    """Turn a picture into a grid of vectors, row by row, with the first three stages of a ResNet with bottlenecks.

    Files of torchvision and timm, and folders of transformers, fill it with what was learned on ImageNet; their fourth stage and their
    head are left out. The norms are frozen when it answers: they use the means that were learned.
    """

    conv_depths: tuple[PositiveInt, PositiveInt, PositiveInt] = Field((3, 4, 23), description="bottlenecks of each stage")
    conv_width: PositiveInt = Field(64, description="channels of the first layer; the third stage has 16 times as many")
    conv_norm: Literal["batch", "group"] = Field("batch", description="batch: with learned means; group: of each picture by itself")
    image_mean: Numbers | None = Field((0.5, 0.5, 0.5), description="mean that the pictures must have been normalised with; None: any")
    image_std: tuple[PositiveFloat, ...] | None = (0.5, 0.5, 0.5)

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the config of a SimVLM or of a ResNet of transformers, or the shapes of a file of torchvision or timm."""
        config, shapes = source.config, source.tensor_shapes()
        if config.get("model_type") == "resnet":
            return _of_transformers(config, source.text)
        if not config and shapes:
            return _of_shapes(shapes, source.text)
        return stated(source, STEM_WORDS)

    @classmethod
    def unheeded(cls, source: Source) -> Iterable[tuple[str, str]]:
        """Give the keys of the config that are not known here."""
        return unheeded(source)

    @property
    def channels(self) -> int:
        """Width of the vectors."""
        return LAST * self.conv_width

    def ports(self) -> Ports:
        """Pixels in, a vector for each 16 x 16 of them out."""
        pixels = port("float[batch 3 height width]", space=Space.of("pixels", mean=self.image_mean, std=self.image_std))
        return Ports.of({"pixels": pixels}, {"patches": "float[batch patches channels]"})

    def parameters(self) -> int:
        """Count convolutions without biases, each with a norm."""
        width, before = self.conv_width, self.conv_width
        total = 3 * 49 * width + 2 * width
        for stage, depth in enumerate(self.conv_depths):
            inner, after = width * 2**stage, 4 * width * 2**stage
            shortcut = before * after + 2 * after
            total += shortcut + sum(_bottleneck(before if block == 0 else after, inner, after) for block in range(depth))
            before = after
        return total


def _bottleneck(before: int, inner: int, after: int) -> int:
    return before * inner + 9 * inner * inner + inner * after + 2 * (2 * inner + after)


def _of_transformers(config: Mapping[str, Any], text: str) -> dict[str, Any]:
    """A ResNet that is no bottleneck of torchvision's kind is refused."""
    width, sizes = config.get("embedding_size", 64), tuple(config.get("hidden_sizes", (256, 512, 1024, 2048)))
    kinds = (config.get("layer_type", "bottleneck"), config.get("downsample_in_first_stage", False), config.get("hidden_act", "relu"))
    if kinds != ("bottleneck", False, "relu") or config.get("downsample_in_bottleneck") or sizes[:3] != (4 * width, 8 * width, 16 * width):
        raise ValueError(f"{text} is a ResNet of another kind than SimVLM's stem: wanted bottlenecks of 4, 8 and 16 times {width} channels")
    return {"conv_depths": tuple(config.get("depths", (3, 4, 6, 3))[:3]), "conv_width": width}


def _of_shapes(shapes: Mapping[str, tuple[int, ...]], text: str) -> dict[str, Any]:
    first = shapes.get(RESNET_KEY)
    if first is None or "layer1.0.conv3.weight" not in shapes:
        raise ValueError(f"{text} is no ResNet with bottlenecks in the names of torchvision: it has no {RESNET_KEY} and layer1.0.conv3")
    depths = (len({key.split(".")[1] for key in shapes if key.startswith(f"layer{stage}.")}) for stage in (1, 2, 3))
    return {"conv_depths": tuple(depths), "conv_width": first[0]}


@component("simvlm/encoder", kind="encoder", module="modelgraft_plugins.simvlm.model:Encoder", exportable=True)
class Encoder(Sized):
    """Read a picture and the beginning of a text together, in both directions.

    pictures, words  what there is to read: a beginning alone, a picture alone, or both. A beginning may have no tokens at all
    Pictures and texts have learned positions of their own. Between two vectors of a picture attention has, for each layer and head, a
    learned number by their distance in rows and columns; a text has none, and none is between both.
    """

    channels: PositiveInt = Field(1024, description="width of the vectors of the stem")
    d_model: PositiveInt = 768
    num_heads: PositiveInt = 12
    ffn_dim: PositiveInt = 3072
    encoder_layers: PositiveInt = 12
    vocab_size: PositiveInt = 32_000
    max_text: PositiveInt = Field(256, description="most tokens of a beginning")
    pictures: bool = Field(True, description="there is a picture to read")
    words: bool = Field(True, description="there is a beginning of a text to read")
    identity: str | None = Field(None, description="names the vocabulary that the ids must be of")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the config of a SimVLM."""
        words = stated(source, ("image_size", *TEXT_WORDS, "encoder_layers"))
        return {**words, "channels": LAST * source.config.get("conv_width", 64)}

    @classmethod
    def unheeded(cls, source: Source) -> Iterable[tuple[str, str]]:
        """Give the keys of the config that are not known here."""
        return unheeded(source)

    @model_validator(mode="after")
    def _reads_something(self) -> Encoder:
        if not (self.pictures or self.words):
            raise ValueError("pictures and words are both false: there is nothing to read")
        return self

    def ports(self) -> Ports:
        """Vectors of a picture, and token ids with their mask, in; the memory, the picture first, and where there is one, out."""
        picture = {"patches": "float[batch patches channels]"} if self.pictures else {}
        text = {"ids": "int64[batch prefix]", "mask": "optional[bool[batch prefix]]"} if self.words else {}
        length = "+".join([*(["patches"] if self.pictures else []), *(["prefix"] if self.words else [])])
        return Ports.of({**picture, **text}, {"memory": f"float[batch {length} d_model]", "memory_mask": f"bool[batch {length}]"})

    def most(self) -> Mapping[str, int]:
        """There are no more positions."""
        return {"prefix": self.max_text} if self.words else {}

    def parameters(self) -> int:
        """Count what pictures and texts enter by, and the layers; what a node does not read is counted all the same."""
        width, cells = self.d_model, (2 * self.learned - 1) ** 2
        entry = self.channels * width + width + (self.learned**2 + self.vocab_size + self.max_text) * width
        layer = 4 * width * width + 4 * width + 2 * width * self.ffn_dim + self.ffn_dim + width + 4 * width + cells * self.num_heads
        return entry + self.encoder_layers * layer + 2 * width

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """The heads must share the width evenly."""
        return uneven_heads(node.name, self.d_model, self.num_heads, names=("d_model", "num_heads"))


@component("simvlm/relative_bias", kind="projector", module="modelgraft_plugins.simvlm.model:BiasedAttention", exportable=True)
class RelativeBias(Config):
    """Add to the logits of attention between the cells of a grid a learned number by their distance, and turn them into shares.

    The number of a query at row y, column x and a key at row v, column u stands at row (y - v + rows - 1) * (2 * columns - 1) + x - u +
    columns - 1 of the table, for each head. Source: arXiv 2106.04803, appendix A.1, and as timm has it.
    """

    grid: tuple[PositiveInt, PositiveInt] = Field((14, 14), description="rows and columns")
    heads: PositiveInt = 12

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read grid and heads."""
        return stated(source, ("grid", "heads"))

    @property
    def cells(self) -> int:
        """Places of the grid."""
        return self.grid[0] * self.grid[1]

    def ports(self) -> Ports:
        """Logits in; the same with the numbers, as shares, and the numbers alone, out."""
        kind = "float[batch heads cells cells]"
        return Ports.of({"logits": kind}, {"attention": kind, "bias": kind})

    def parameters(self) -> int:
        """Every distance in rows and columns, of each head."""
        return (2 * self.grid[0] - 1) * (2 * self.grid[1] - 1) * self.heads


@hookimpl
def register_components(register: Callable[[Any], None]) -> None:
    """Offer the components of this plugin."""
    for subject in (Stem, Encoder, RelativeBias):
        register(subject)


@hookimpl
def register_recorded_configs(register: Callable[[str, Any], None]) -> None:
    """Offer the sizes of the paper."""
    for name in PRESETS:
        register(f"preset:{name}", Path(__file__).parent / "presets" / name)
