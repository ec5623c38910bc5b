"""NFNet, a residual network without norms, as an eye: what is known of it without building it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from modelgraft import Config, Ports, component, port
from modelgraft_plugins.cut_pictures import normalisation
from modelgraft_plugins.pictures import pixel_space
from modelgraft_plugins.stated import tower_table

if TYPE_CHECKING:
    from modelgraft.plugin import Source

Four = tuple[int, int, int, int]
WHOLE, KIND = "nfnet", "nfnet_vision_model"  # model_type of such a classifier and of its tower, as families/nfnet.py gives them
FIELDS = ("depths", "channels", "inner_channels", "gate_channels", "stem_channels", "group_size", "features", "image_size")
TABLE = tower_table(FIELDS)
STRIDE = 32  # pixels of a side that one vector stands for: five halvings
STEM = (8, 4, 2, 1)  # the four convolutions of the stem have so many times fewer channels


@component("vision/nfnet", kind="encoder", module="modelgraft_plugins.vision.nfnet:NFNet", exportable=True, keywords=("eye",))
class NFNet(Config):
    """Turn prepared pictures into one vector per cell of a grid, and one for the whole, with an NFNet (Normalizer-Free ResNet).

    tokens  row by row, one vector for each 32 x 32 pixels: with `layer: -1` what the last stage gives, which Flamingo reads;
            otherwise what the last convolution makes of it, wider and activated
    pooled  the mean of what the last convolution makes, which its classifier reads
    select  there is no class token, so that "patches" are all: a graph may have this or vision/encoder
    many    several pictures per record: an axis `images` before the others
    """

    depths: Four = Field((1, 2, 6, 3), description="blocks of each of the four stages; F0 to F6 have one to seven times these")
    channels: Four = Field((256, 512, 1536, 1536), description="channels that each stage gives")
    inner_channels: Four = Field((128, 256, 768, 768), description="channels that the wide convolutions of each stage compute in")
    gate_channels: Four = Field((128, 256, 768, 768), description="of the gates of each stage (squeeze and excite)")
    stem_channels: int = Field(128, gt=0, multiple_of=STEM[0], description="channels behind the stem")
    group_size: int = Field(128, gt=0, description="channels of a group of the wide convolutions")
    features: int = Field(3072, gt=0, description="channels of the last convolution")
    layer: Literal[-1] | None = Field(None, description="-1: what the last stage gives; None: what the last convolution makes of it")
    select: Literal["all", "patches"] = Field("all", description="which vectors are given; here both are the same")
    many: bool = Field(False, description="several pictures per record")
    image_size: int = Field(224, gt=0, multiple_of=STRIDE)
    image_mean: tuple[float, ...] | None = Field(None, description="mean that the pictures must have been normalised with; None: any")
    image_std: tuple[float, ...] | None = None

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the sizes of a published NFNet-F, by its name or by the shapes of its tensors. Raises ValueError for another model."""
        kind = source.config.get("model_type")
        if kind != KIND:
            hint = ": write #vision_model behind the source" if source.root.get("model_type") == WHOLE and not source.part else ""
            raise ValueError(f"vision/nfnet serves the tower of timm's dm_nfnet_f0 to f6, not model_type '{kind or 'unknown'}'{hint}")
        return {**{field: source.config[field] for field in FIELDS}, **normalisation(source)}

    @classmethod
    def unheeded(cls, source: Source) -> list[tuple[str, str]]:
        """What the config states and this does not know."""
        return TABLE.unheeded(source.config, source.text)

    @property
    def tokens(self) -> int:
        """Cells of the grid."""
        return int(self.image_size // STRIDE) ** 2

    @property
    def token_size(self) -> int:
        """Width of the vector of a cell."""
        return self.features if self.layer is None else self.channels[-1]

    def ports(self) -> Ports:
        """Pixels in; a vector per cell, and one for the picture, out."""
        axes = "batch images" if self.many else "batch"
        pixels = port(f"float[{axes} 3 image_size image_size]", space=pixel_space(self.image_mean, self.image_std))
        return Ports.of({"pixels": pixels}, {"tokens": f"float[{axes} tokens token_size]", "pooled": f"float[{axes} features]"})

    def parameters(self) -> int:
        """Count the network without a classifier; each convolution has a bias and a gain for each of its channels."""
        widths = [3, *(self.stem_channels // share for share in STEM)]
        stem = sum(_convolution(given, out, 3) for given, out in itertools.pairwise(widths))
        blocks, given = 0, self.stem_channels
        for stage, (count, out, inner, gate) in enumerate(
            zip(self.depths, self.channels, self.inner_channels, self.gate_channels, strict=True)
        ):
            wide = 2 * _convolution(self.group_size, inner, 3) + _convolution(inner, out, 1)
            rest = wide + 2 * gate * out + gate + out + 1  # the gate, and the factor of the whole block
            around = _convolution(given, out, 1) if stage or given != out else 0
            blocks += count * rest + _convolution(given, inner, 1) + (count - 1) * _convolution(out, inner, 1) + around
            given = out
        return stem + blocks + _convolution(given, self.features, 1)


def _convolution(given: int, out: int, side: int) -> int:
    """Weights, and for each channel a bias and a gain."""
    return given * out * side * side + 2 * out
