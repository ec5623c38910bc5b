"""Qwen-VL of 2023: an eye without a class token, one look of learned queries at it, and a Qwen between whose words the result stands.

    pixels:  {use: vision/preprocess, from: "${checkpoint}", in: {image: inputs.image}}
    eye:     {use: qwenvl/eye, from: "${checkpoint}#visual", in: {pixels: pixels}}            # [batch 1024 1664]
    adapter: {use: qwenvl/adapter, from: "${checkpoint}#visual", in: {patches: eye}}          # [batch 256 4096]
    post:    {use: qwenvl/post, from: "${checkpoint}#visual", in: {latents: adapter}}
    llm:     {use: llm/causal, from: "${checkpoint}#language_model", in: {image: post, ...}}

The adapter reads the vectors of any eye that sees squares. Source: arXiv 2308.12966, and `visual.py` of the published code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from modelgraft import Config, Dim, Ports, component, hookimpl, port
from modelgraft_plugins.cut_pictures import normalisation
from modelgraft_plugins.pictures import Numbers, pixel_space
from modelgraft_plugins.widths import uneven_heads

if TYPE_CHECKING:
    from modelgraft.plugin import SolvedNode, Source

PRESETS = ("qwen-vl", "qwen-vl-chat")
PUBLISHED = {"Qwen/Qwen-VL": "qwen-vl", "Qwen/Qwen-VL-Chat": "qwen-vl-chat"}
KIND = "qwen_vl_visual"  # model_type of the part of a checkpoint that all of these read
TABLE = 16  # rows and columns of the eye's learned places, in every file


class VisualConfig(Config):
    """What the parts share: their sizes come from one source; not a component itself."""

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the sizes of what sees in a Qwen-VL. Raises ValueError for another model."""
        config = source.config
        if config.get("model_type") != KIND:
            raise ValueError(
                f"{source.text} is no eye of a Qwen-VL (model_type {config.get('model_type')!r}); of a whole one write #visual"
            )
        found = {**config, **normalisation(source)}
        return {name: found[name] for name in cls.model_fields if found.get(name) is not None}


@component("qwenvl/eye", kind="encoder", module="modelgraft_plugins.qwenvl.modules:Eye", exportable=True, keywords=("eye",))
class Eye(VisualConfig):
    """Turn a prepared picture into one vector per patch: a vision transformer with a norm before its blocks and none behind them.

    interpolate  take squares of other sizes: the learned places, 16 x 16 of them, are always brought to the grid of the picture
    """

    width: int = Field(1664, gt=0, description="of the vectors")
    layers: int = Field(48, gt=0)
    heads: int = Field(16, gt=0)
    mlp_width: int = Field(8192, gt=0, description="between the layers of a feed-forward: the width times 4.9231, rounded down")
    patch_size: int = Field(14, gt=0)
    image_size: int = Field(448, gt=0, description="side of the pictures in pixels: 224 in the first step of training, 448 later")
    interpolate: bool = Field(False, description="take squares of other sizes")
    image_mean: Numbers | None = Field(None, description="mean that the pictures must have been normalised with; None: any")
    image_std: Numbers | None = None

    @model_validator(mode="after")
    def _is_cut_evenly(self) -> Eye:
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size is {self.image_size}, wanted a multiple of patch_size, {self.patch_size}")
        return self

    @property
    def side(self) -> int | None:
        """Height and width of the pictures; None: any."""
        return None if self.interpolate else self.image_size

    @property
    def tokens(self) -> int | None:
        """Patches of a picture; None: any number."""
        return None if self.interpolate else (self.image_size // self.patch_size) ** 2

    def ports(self) -> Ports:
        """Square pictures in, vectors out."""
        size = "height width" if self.interpolate else "side side"
        pixels = port(f"float[batch 3 {size}]", space=pixel_space(self.image_mean, self.image_std))
        return Ports.of({"pixels": pixels}, {"patches": "float[batch tokens width]"})

    def multiples(self) -> Mapping[str, int]:
        """Pictures of any size are whole patches."""
        return dict.fromkeys(("height", "width"), self.patch_size) if self.interpolate else {}

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """The heads must share the width evenly."""
        return uneven_heads(node.name, self.width, self.heads)

    def parameters(self) -> int:
        """Patches, places, a norm, and the blocks."""
        width, wide = self.width, self.mlp_width
        block = 4 * (width * width + width) + 2 * width * wide + wide + width + 4 * width
        return 3 * self.patch_size**2 * width + TABLE**2 * width + 2 * width + self.layers * block


@component("qwenvl/adapter", kind="resampler", module="modelgraft_plugins.qwenvl.modules:Adapter", exportable=True)
class Adapter(VisualConfig):
    """Let learned queries look once at the vectors of a square grid: queries and keys are told their places on it, values not."""

    width: Dim = Field(None, description="of what is looked at")
    output_dim: Dim = Field(None, description="width of what comes out: that of the language model")
    n_queries: int = Field(256, gt=0, description="vectors that come out, a square number")
    resampler_heads: int | None = Field(None, gt=0, description="of attention; None: one for each 128 of the width")

    @model_validator(mode="after")
    def _is_square(self) -> Adapter:
        if math.isqrt(self.n_queries) ** 2 != self.n_queries:
            raise ValueError(f"n_queries is {self.n_queries}, wanted a square number, such as 64 or 256: they stand in a grid")
        return self

    @property
    def heads(self) -> int:
        """Heads of attention."""
        return self.resampler_heads or max((self.output_dim or 0) // 128, 1)

    def ports(self) -> Ports:
        """Vectors of a square grid in, one for each query out."""
        return Ports.of({"patches": "float[batch places width]"}, {"latents": "float[batch n_queries output_dim]"})

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """The heads must share the width evenly, and places need a quarter of it for each wave."""
        if self.output_dim is not None:
            yield from uneven_heads(node.name, self.output_dim, self.heads)
            if self.output_dim % 4:
                found = f"{node.name}.output_dim is {self.output_dim}, and places in two dimensions take a multiple of 4"
                yield "config-mismatch", found, "choose such a width"

    def parameters(self) -> int | None:
        """Queries and their places, a map where the widths differ, attention, and two norms."""
        if self.width is None or self.output_dim is None:
            return None
        out = self.output_dim
        mapped = self.width * out if self.width != out else 0
        return 2 * self.n_queries * out + mapped + 4 * (out * out + out) + 4 * out


@component("qwenvl/post", kind="projector", module="modelgraft_plugins.qwenvl.modules:Post", exportable=True)
class Post(VisualConfig):
    """Norm vectors, and multiply them by a matrix: what stands between the adapter and the language model."""

    output_dim: Dim = Field(None, description="width of the vectors")

    def ports(self) -> Ports:
        """Vectors in and out."""
        return Ports.of({"latents": "float[batch queries output_dim]"}, {"tokens": "float[batch queries output_dim]"})

    def parameters(self) -> int | None:
        """A norm and a matrix."""
        return None if self.output_dim is None else 2 * self.output_dim + self.output_dim**2


@hookimpl
def register_components(register: Callable[[Any], None]) -> None:
    """Offer the components of this plugin."""
    for subject in (Eye, Adapter, Post):
        register(subject)


@hookimpl
def register_recorded_configs(register: Callable[[str, Any], None]) -> None:
    """Offer the published sizes, by presets and by their names on the hub."""
    home = Path(__file__).parent / "presets"
    for name in PRESETS:
        register(f"preset:{name}", home / name)
    for name, folder in PUBLISHED.items():
        register(name, home / folder)
