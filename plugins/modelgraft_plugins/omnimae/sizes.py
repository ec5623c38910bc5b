"""What the parts of OmniMAE have in common: the medium, how it is cut into patches, and where the numbers of a checkpoint stand. Light."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PositiveInt, model_validator

from modelgraft import Config, Port, Space, port
from modelgraft_plugins.stated import Table, tower_table

if TYPE_CHECKING:
    from modelgraft.plugin import Source

Medium = Literal["image", "video"]
COLOURS = 3
MEAN, STD = (
    (0.485, 0.456, 0.406),
    (0.229, 0.224, 0.225),
)  # of red, green and blue, from 0 to 1: what all published weights were trained with
HEADS: Mapping[int, int] = {768: 12, 1024: 16, 1280: 16}  # width -> heads of the published encoders, which no shape tells
DECODER_WIDTHS, DECODER_HEADS = (384, 512), 16  # every published decoder
FRAMES = 16  # of a clip, in every published model
GRID_WORDS = ("image_size", "num_frames", "patch_size")  # as the reference calls them
ENCODER_WORDS = ("embed_dim", "depth", "num_heads")
DECODER_WORDS = ("decoder_embed_dim", "decoder_depth", "decoder_num_heads")
STEM, TABLE = "trunk.patch_embed.proj.1.weight", "trunk.pos_embed"  # of the official files
KEYS: Table = tower_table(
    (*GRID_WORDS, *ENCODER_WORDS, *DECODER_WORDS, "decoder_qkv_bias"), ("num_classes",), {"mlp_ratio": (4, 4.0)}
)  # of a config.json


class Grid(Config):
    """Pixels cut into patches of time, height and width. A still picture stands for as many equal frames as a patch is deep.

    medium      image: float[batch 3 height width];  video: float[batch 3 frames height width]
    image_size  side of the pictures and frames that the weights were trained with, which the position table is for
    size        height and width of those that come, where they are others: positions are resized, in each slice of time by itself
    """

    medium: Medium = Field("image", description="image: still pictures; video: clips of num_frames frames")
    image_size: PositiveInt | None = Field(224, description="side in pixels that the weights were trained with; None: by `positions`")
    num_frames: PositiveInt = Field(FRAMES, description="frames of a clip")
    patch_size: tuple[PositiveInt, PositiveInt, PositiveInt] = Field((2, 16, 16), description="frames, height and width of a patch")
    size: Mapping[Literal["height", "width"], PositiveInt] | None = Field(
        None, description="height and width of the pixels, where they are not image_size: multiples of the patch"
    )
    positions: PositiveInt | None = Field(
        None, description="rows of the position table of a file, which says image_size where nothing else does"
    )

    @model_validator(mode="after")
    def _is_cut_evenly(self) -> Grid:
        time, high, wide = self.patch_size
        if self.num_frames % time:
            raise ValueError(f"num_frames is {self.num_frames}, and a patch is {time} frames deep: a multiple of {time} is wanted")
        if self.image_size is None and self._side() is None:
            way_out = "give num_frames, or image_size"
            raise ValueError(f"the file has {self.positions} positions, which are no squares over {self.num_frames} frames: {way_out}")
        if self.size is not None and set(self.size) != {"height", "width"}:
            raise ValueError(f"size is {dict(self.size)}, wanted {{height, width}}")
        for name, pixels, side in (("height", self.height, high), ("width", self.width, wide)):
            if pixels % side:
                ways = f"{pixels // side * side or side} or {(pixels // side + 1) * side}"
                raise ValueError(f"the {name} is {pixels} pixels, and a patch has {side}: {ways} can be cut evenly")
        return self

    def _side(self) -> int | None:
        """The trained side, by the rows of a position table."""
        slices = self.num_frames // self.patch_size[0]
        if self.positions is None or self.positions % slices:
            return None
        side = math.isqrt(self.positions // slices)
        return side * self.patch_size[1] if side * side * slices == self.positions else None

    @property
    def trained(self) -> tuple[int, int, int]:
        """Slices, rows and columns of the position table."""
        time, high, wide = self.patch_size
        side = self.image_size or self._side() or 0
        return self.num_frames // time, side // high, side // wide

    @property
    def height(self) -> int:
        """Of the pixels."""
        return self.size["height"] if self.size is not None else self.image_size or self._side() or 0

    @property
    def width(self) -> int:
        """Of the pixels."""
        return self.size["width"] if self.size is not None else self.image_size or self._side() or 0

    @property
    def is_still(self) -> bool:
        """Still pictures come."""
        return self.medium == "image"

    @property
    def slices(self) -> int:
        """Patches one after another in time."""
        return 1 if self.is_still else self.num_frames // self.patch_size[0]

    @property
    def rows(self) -> int:
        """Patches one below the other."""
        return self.height // self.patch_size[1]

    @property
    def columns(self) -> int:
        """Patches side by side."""
        return self.width // self.patch_size[2]

    @property
    def tokens(self) -> int:
        """Patches of a picture or clip."""
        return self.slices * self.rows * self.columns

    @property
    def values(self) -> int:
        """Numbers of a patch, also of a still picture: its frames, rows, columns and colours."""
        return math.prod(self.patch_size) * COLOURS

    def pixels(self, before: str = "batch") -> Port:
        """The port of the pixels; `before` are the axes in front of the colours."""
        axes = f"{before} 3 height width" if self.is_still else f"{before} 3 num_frames height width"
        return port(f"float[{axes}]", space=Space.of("pixels", mean=MEAN, std=STD))

    def mask(self) -> str:
        """The type of a mask: True where a patch is hidden."""
        return "bool[batch rows columns]" if self.is_still else "bool[batch slices rows columns]"


def grid_of(source: Source) -> dict[str, Any]:
    """How a checkpoint cuts pixels: by its config, else by the shapes of its tensors. Empty where the graph must say.

    Raises ValueError for a config or a file of another model.
    """
    config, shapes = source.config, source.tensor_shapes()
    kind = config.get("model_type", "omnimae")
    if kind != "omnimae" or (config and "patch_size" not in config) or (shapes and STEM not in shapes):
        found = f"model_type '{kind}'" if kind != "omnimae" else "no patch_size" if config else f"no {STEM}"
        raise ValueError(f"{source.text} is no OmniMAE: it has {found}")
    found_words = {word: config[word] for word in GRID_WORDS if word in config}
    if not config and shapes:
        found_words = {"patch_size": shapes[STEM][2:], "image_size": None, "positions": shapes.get(TABLE, (1, None, 0))[1]}
    return found_words


def depth_of(shapes: Mapping[str, tuple[int, ...]], prefix: str) -> int:
    """How many blocks there are under a prefix."""
    return len({key.removeprefix(prefix).split(".")[0] for key in shapes if key.startswith(prefix)})


def unheeded(source: Source) -> Iterable[tuple[str, str]]:
    """What the config.json states and nothing here knows."""
    return KEYS.unheeded(source.config, source.text)


def block_parameters(width: int, *, qkv_bias: bool) -> int:
    """Of one block: attention, a feed-forward of four widths, two norms."""
    attention = 4 * width * width + width + (3 * width if qkv_bias else 0)
    return attention + 2 * 4 * width * width + 5 * width + 4 * width
