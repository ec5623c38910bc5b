"""VQ-KD, the tokenizer of pictures of BEiT v2: its encoder with the code book, its decoder, its loss. Light: no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field, PositiveFloat, model_validator

from modelgraft import Config, Ports, Space, component, port
from modelgraft_plugins.beit3.sizes import HALF, HEAD_WIDTH, must_be, uneven_patches
from modelgraft_plugins.stated import Table, tower_table
from modelgraft_plugins.widths import uneven_heads

if TYPE_CHECKING:
    from modelgraft.plugin import SolvedNode, Source

SIGN = "quantize.embedding.weight"  # a tensor that its files have, and no other
PIXELS = Space.of("pixels", mean=HALF, std=HALF)

# our word -> the word of the published code
WORDS: Mapping[str, str] = {
    "image_size": "img_size", "patch_size": "patch_size", "hidden_size": "width", "num_hidden_layers": "depth",
    "num_attention_heads": "num_heads", "mlp_ratio": "mlp_ratio", "codes": "codes", "code_size": "code_dim",
    "decoder_layers": "decoder_depth", "decoded_size": "decoder_out_dim",
}  # fmt: skip
TABLE: Table = tower_table(WORDS.values(), {"decay", "beta", "teacher"})  # of training


class VqkdSizes(Config):
    """The sizes of a VQ-KD; by default those that were published with CLIP as their teacher."""

    hidden_size: int = Field(768, gt=0)
    num_hidden_layers: int = Field(12, gt=0, description="layers of the encoder")
    num_attention_heads: int | None = Field(None, gt=0, description="None: one for each 64 of the width, as in all that are published")
    mlp_ratio: PositiveFloat = 4.0
    image_size: int = Field(224, gt=0)
    patch_size: int = Field(16, gt=0)
    num_channels: int = Field(3, gt=0)
    codes: int = Field(8192, gt=0, description="entries of the code book")
    code_size: int = Field(32, gt=0, description="numbers of an entry")
    decoder_layers: int = Field(1, gt=0)
    decoded_size: int = Field(512, gt=0, description="width of the teacher's vectors: 512 of CLIP, 768 of DINO")
    interpolate: bool = Field(False, description="take pictures of any size, with positions resized for each")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the config; what it does not say is said by the shapes of the tensors."""
        return vqkd_sizes(source)

    @classmethod
    def unheeded(cls, source: Source) -> list[tuple[str, str]]:
        """What the config states and is not known here."""
        return TABLE.unheeded(source.root, source.text)

    @model_validator(mode="after")
    def _can_be_built(self) -> VqkdSizes:
        if self.num_attention_heads is None and self.hidden_size % HEAD_WIDTH:
            found = f"hidden_size is {self.hidden_size}, no multiple of {HEAD_WIDTH}, so that the number of heads is not known"
            raise ValueError(f"{found}: set num_attention_heads")
        if self.image_size % self.patch_size:
            raise ValueError(uneven_patches(self.image_size, self.patch_size))
        return self

    @property
    def heads(self) -> int:
        """Heads of the attention, in the encoder and in the decoder."""
        return self.num_attention_heads or self.hidden_size // HEAD_WIDTH

    @property
    def inner(self) -> int:
        """Width inside of the feed-forward layers."""
        return int(self.hidden_size * self.mlp_ratio)

    @property
    def grid(self) -> int:
        """Rows, and columns, of patches of a picture of `image_size`."""
        return self.image_size // self.patch_size

    @property
    def rows(self) -> int | None:
        """Rows of patches; None when pictures may have any size."""
        return None if self.interpolate else self.grid

    @property
    def columns(self) -> int | None:
        """Columns of patches; None when pictures may have any size."""
        return self.rows

    @property
    def patches(self) -> int | None:
        """Patches of a picture; None when pictures may have any size."""
        return None if self.interpolate else self.grid**2

    @property
    def side(self) -> int | None:
        """Side of the pictures in pixels; None when they may have any size."""
        return None if self.interpolate else self.image_size

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """The heads must share the width evenly."""
        return uneven_heads(node.name, self.hidden_size, self.heads)

    def tower(self, *, layers: int, entry: int) -> int:
        """Parameters of a tower; `entry`: numbers that one patch is made of."""
        width, inner = self.hidden_size, self.inner
        block = 4 * width * width + 3 * width + 4 * width + 2 * width * inner + inner + width  # keys have no bias
        return width + (self.grid**2 + 1) * width + entry * width + width + layers * block + 2 * width


@component("beit3/vqkd", kind="encoder", module="modelgraft_plugins.beit3.vqkd_modules:Tokenizer", exportable=True)
class Tokenizer(VqkdSizes):
    """Turn a picture into visual ids, one for each patch: the nearest of a learned set of code vectors (VQ-KD of BEiT v2).

    ids, map        the ids row by row, and as they lie on the picture
    vectors, codes  the code vectors that were nearest, row by row and as a map; gradients go past them to the features (straight-through)
    features        what is compared with the code vectors, before it is brought to the length 1
    The code book is moved only where its `update` is called, in training: running it changes nothing.
    """

    def ports(self) -> Ports:
        """Pixels from -1 to 1 in."""
        pixels = port(f"float[batch num_channels {'height width' if self.interpolate else 'side side'}]", space=PIXELS)
        outputs = {
            "ids": "int64[batch patches]",
            "map": "int64[batch rows columns]",
            "vectors": "float[batch patches code_size]",
            "codes": "float[batch code_size rows columns]",
            "features": "float[batch patches code_size]",
        }
        return Ports.of({"pixels": pixels}, outputs)

    def multiples(self) -> Mapping[str, int]:
        """Pictures of any size are whole patches."""
        return dict.fromkeys(("height", "width"), self.patch_size) if self.interpolate else {}

    def parameters(self) -> int:
        """The encoder, two layers, and the code book."""
        width = self.hidden_size
        task = width * width + width + width * self.code_size + self.code_size
        return self.tower(layers=self.num_hidden_layers, entry=self.num_channels * self.patch_size**2) + task + self.codes * self.code_size


@component("beit3/vqkd_decoder", kind="projector", module="modelgraft_plugins.beit3.vqkd_modules:Decoder", exportable=True)
class Decoder(VqkdSizes):
    """Guess from the codes of a picture what its teacher, a CLIP or DINO, says of each patch. Only training needs it."""

    def ports(self) -> Ports:
        """A map of codes in, a vector for each of its places out."""
        return Ports.of({"codes": "float[batch code_size rows columns]"}, {"decoded": "float[batch patches decoded_size]"})

    def parameters(self) -> int:
        """The decoder and two layers."""
        width = self.hidden_size
        task = width * width + width + width * self.decoded_size + self.decoded_size
        return self.tower(layers=self.decoder_layers, entry=self.code_size) + task


@component("beit3/vqkd_loss", kind="loss", module="modelgraft_plugins.beit3.vqkd_modules:Loss", exportable=True)
class Loss(Config):
    """Lose by how far features are from their codes, and by the angle between what was decoded and what the teacher says.

    The share of a record is beta * mean((codes - unit features)^2) + mean(1 - cosine); codes are not moved by it.
    Source: arXiv 2208.06366, equation 5, as the published code computes it.
    """

    beta: float = Field(1.0, ge=0, description="weight of the first part")

    def ports(self) -> Ports:
        """What the tokenizer, the decoder and the teacher give in; the share of each record out."""
        vectors = "float[batch patches decoded_size]"
        compared = dict.fromkeys(("features", "vectors"), "float[batch patches code_size]")
        return Ports.of({**compared, "decoded": vectors, "teacher": vectors}, {"loss": "float[batch]"})


@component(
    "beit3/code_picture",
    kind="generator",
    load="modelgraft_plugins.beit3.painting:load",
    inputs={"image": "image", "map": "int64[batch rows columns]", "codes": "float[batch code_size rows columns]"},
    outputs={"image": "image"},
)
class CodePicture(Config):
    """Draw the visual ids of a picture beside it: a tile for each patch, of a colour for each code, with its number.

    Codes that are near each other have near colours, and a code has one colour in all pictures. Lines stand between unlike neighbours.
    """

    tile: int = Field(36, gt=0, le=256, description="side of a tile in pixels")
    numbers: bool = Field(True, description="write the ids on the tiles")


def vqkd_sizes(source: Source) -> dict[str, Any]:
    """The fields of VqkdSizes that a source decides. Raises ValueError for a source of something else."""
    must_be(source, "vqkd", "VQ-KD")
    stated = {word: source.root[key] for word, key in WORDS.items() if source.root.get(key) is not None}
    return {**_by_shapes(source), **stated}


def _by_shapes(source: Source) -> dict[str, Any]:
    shapes = source.tensor_shapes()
    if not shapes:
        return {}
    book, patch, table, inner = (
        shapes.get(key) for key in (SIGN, "encoder.patch_embed.proj.weight", "encoder.pos_embed", "encoder.blocks.0.mlp.fc1.weight")
    )
    if book is None or patch is None or table is None or inner is None:
        raise ValueError(f"{source.text} holds no VQ-KD: its files have {SIGN} and encoder.pos_embed")
    side = math.isqrt(table[1] - 1)
    if side * side != table[1] - 1:
        raise ValueError(f"{source.text} has positions for {table[1] - 1} patches, which are no square")
    found = {
        "codes": book[0], "code_size": book[1], "hidden_size": patch[0], "num_channels": patch[1], "patch_size": patch[2],
        "image_size": side * patch[2], "mlp_ratio": inner[0] / inner[1], "num_hidden_layers": _blocks(shapes, "encoder"),
    }  # fmt: skip
    last = shapes.get("decode_task_layer.2.weight")
    decoder = {"decoder_layers": _blocks(shapes, "decoder"), "decoded_size": last[0]} if last is not None else {}
    return {**found, **decoder}


def _blocks(shapes: Mapping[str, Any], tower: str) -> int:
    return len({key.split(".")[2] for key in shapes if key.startswith(f"{tower}.blocks.")})
