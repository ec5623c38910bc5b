"""CLIP's residual network as an eye: what is known of it without building it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from modelgraft import Config, Ports, component, port
from modelgraft_plugins.cut_pictures import normalisation
from modelgraft_plugins.pictures import pixel_space
from modelgraft_plugins.stated import tower_table
from modelgraft_plugins.widths import uneven_heads

if TYPE_CHECKING:
    from modelgraft.plugin import SolvedNode, Source

KIND = "clip_resnet"  # model_type of such a tower
FIELDS: Mapping[str, str] = {  # word of the published code -> field
    "layers": "layers", "width": "width", "heads": "num_attention_heads", "output_dim": "projection_size", "input_resolution": "image_size",
}  # fmt: skip
TABLE = tower_table(FIELDS)
GROWTH = 4  # a block gives so many times the channels that it computes in
STRIDE = 32  # pixels of a side that one vector stands for: five halvings
HEAD_WIDTH = 64  # of every published tower


@component("clip/resnet", kind="encoder", module="modelgraft_plugins.vision.resnet:ResNet", exportable=True, keywords=("eye",))
class ResNet(Config):
    """Turn prepared pictures into one vector per cell of a grid, and one for the whole by attention, with CLIP's residual network.

    tokens  what the last block gives, row by row: one vector for each 32 x 32 pixels
    pooled  what the mean of all cells, as a query, gathers from them; of a whole CLIP it is mapped into the shared space by the part
            `visual_projection`, otherwise `projection_size` is the width of a map inside the tower, as the published code has it
    """

    layers: tuple[int, int, int, int] = Field((3, 4, 6, 3), description="blocks of each of the four stages")
    width: int = Field(64, gt=1, description="channels behind the stem; the last stage gives 32 times as many")
    num_attention_heads: int = Field(32, ge=0, description="of the attention that pools; published towers have 64 numbers in each")
    projection_size: int | None = Field(None, gt=0, description="width that the pooled vector is mapped to; None: it is not")
    image_size: int = Field(224, gt=0, multiple_of=STRIDE)
    image_mean: tuple[float, ...] | None = Field(None, description="mean that the pictures must have been normalised with; None: any")
    image_std: tuple[float, ...] | None = None

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the sizes from a config of such a tower, or from the shapes of its tensors."""
        kind, shapes = source.config.get("model_type"), source.tensor_shapes()
        if kind == KIND:
            stated = {field: source.config[word] for word, field in FIELDS.items() if source.config.get(word) is not None}
        elif not source.root and "layer1.0.conv1.weight" in shapes:
            stated = sizes_of(shapes)
        else:
            raise ValueError(f"clip/resnet serves {KIND}, the residual tower of a CLIP, not model_type '{kind or 'unknown'}'")
        return {**stated, **normalisation(source)}

    @classmethod
    def unheeded(cls, source: Source) -> list[tuple[str, str]]:
        """What the config of the tower states and this does not know."""
        return TABLE.unheeded(source.config, source.text) if source.config.get("model_type") == KIND else []

    @model_validator(mode="after")
    def _has_heads(self) -> ResNet:
        if not self.num_attention_heads:
            raise ValueError(
                "num_attention_heads is 0: the files do not say how many heads share the width; say it with num_attention_heads"
            )
        return self

    @property
    def channels(self) -> int:
        """Numbers of a vector per cell."""
        return self.width * 8 * GROWTH

    @property
    def tokens(self) -> int:
        """Cells of the grid."""
        return int(self.image_size // STRIDE) ** 2

    @property
    def pooled_size(self) -> int:
        """Width of the vector of a picture."""
        return self.projection_size or self.channels

    def ports(self) -> Ports:
        """Pixels in; a vector per cell, and one for the picture, out."""
        pixels = port("float[batch 3 image_size image_size]", space=pixel_space(self.image_mean, self.image_std))
        return Ports.of({"pixels": pixels}, {"tokens": "float[batch tokens channels]", "pooled": "float[batch pooled_size]"})

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """The heads must share the width evenly."""
        return uneven_heads(node.name, self.channels, self.num_attention_heads)

    def parameters(self) -> int:
        """Count the tower: a norm has a scale and a shift for each channel; its mean and variance are no parameters."""
        half, width = self.width // 2, self.width
        stem = 9 * (3 * half + half * half + half * width) + 2 * (half + half + width)
        blocks, given = 0, width
        for stage, count in enumerate(self.layers):
            inner, out = width * 2**stage, width * 2**stage * GROWTH
            first = given * inner + 9 * inner * inner + inner * out + 2 * (inner + inner + out)
            blocks += first + given * out + 2 * out + (count - 1) * (first + (out - given) * inner)
            given = out
        pool = (self.tokens + 1) * given + 3 * (given * given + given) + (given + 1) * (self.projection_size or 0)
        return stem + blocks + pool


def sizes_of(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The sizes of a tower by the shapes of its tensors; heads are 64 wide, as in every published one, or 0 where they cannot be."""
    width, positions = shapes["layer1.0.conv1.weight"][0], shapes["attnpool.positional_embedding"][0]
    blocks = [{key.split(".")[1] for key in shapes if key.startswith(f"layer{stage}.")} for stage in (1, 2, 3, 4)]
    heads, over = divmod(width * 8 * GROWTH, HEAD_WIDTH)
    if over:
        raise ValueError(
            f"published towers have heads of {HEAD_WIDTH}, and this one is {width * 8 * GROWTH} wide: give num_attention_heads"
        )
    mapped, side = shapes.get("attnpool.c_proj.weight"), math.isqrt(positions - 1) * STRIDE
    return {
        "layers": tuple(map(len, blocks)), "width": width, "num_attention_heads": 0 if over else heads, "image_size": side,
        "projection_size": mapped[0] if mapped is not None else None,
    }  # fmt: skip
