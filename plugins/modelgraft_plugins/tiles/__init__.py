"""Pictures cut into tiles of one size, and put together again as vectors.

    cut:     {use: tiles/preprocess, from: "${checkpoint}", in: {image: inputs.image}}            # tiles of all pictures, each an ask
    vision:  {use: vision/encoder, from: "${checkpoint}#vision_model", in: {pixels: cut.pixels}}
    project: {use: projector/linear, from: "${checkpoint}#connector", in: {x: vision.tokens}}
    joined:  {use: tiles/join, from: "${checkpoint}", in: {tokens: project, counts: cut.counts, grids: cut.grids}}
    llm:     {use: llm/causal, ..., in: {image: joined.image, image_lengths: joined.lengths, image_words: joined.words}}

What stands between knows nothing of tiles: it runs once for those of all records. A record has any number of pictures, none among them;
three outputs of tiles/preprocess tell of them, each filled up with zeros where a record has fewer than others:
    counts  int64[batch media]      tiles of each picture
    grids   int64[batch media 2]    rows and columns of tiles that it was cut into; 0 0 where it was left whole
    sizes   int64[batch media 2]    its height and width in pixels, as it was given
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator

from modelgraft import Config, Dim, Port, Ports, component, hookimpl, port
from modelgraft.plugin import families
from modelgraft_plugins.cut_pictures import cut_config, unheeded
from modelgraft_plugins.pictures import PictureSteps

if TYPE_CHECKING:
    from modelgraft.plugin import Source

ABOUT = {"counts": "int64[batch media]", "grids": "int64[batch media 2]"}
ASPECT = "anyres_max_"  # what vision_aspect_ratio of a LLaVA-OneVision begins with


@component("tiles/preprocess", kind="preprocess", load="modelgraft_plugins.tiles.cutting:load", cache=False)
class Preprocess(PictureSteps):
    """Cut pictures into tiles of one size, and normalise them, as a checkpoint's own image processor does.

    cut     none: each picture becomes one square tile
            grid: each side becomes a whole number of tiles, and the picture as one tile stands behind them (Idefics 3, SmolVLM)
            resolutions: it is fitted into the best of several sizes, with black around it, and stands whole before them (LLaVA-NeXT)
            crops: a picture that is wide, or high, stands whole before a row, or a column, of crops (Gemma 3)
            shape: as many rows and columns as come nearest to its shape; if these are several, it stands whole behind them (InternVL)
            native: it keeps its shape, within `shortest` and `longest`; corners: the same of its four quarters, and of itself (Idefics 2).
            What is smaller than another of its call is filled up with zeros, right and below, to whole patches of `patch_size`, and
            `shapes` says what is there
    alone   resolutions: only a picture that is the only one of its record is cut; others become squares (LLaVA-OneVision)
    Pictures of any mode become RGB first. Tiles stand row by row.
    """

    cut: Literal["none", "grid", "resolutions", "shape", "crops", "native", "corners"] = "none"
    tile: int = Field(384, gt=0, le=8192, description="side of a tile in pixels")
    longest: int | None = Field(
        None,
        gt=0,
        le=8192,
        description="with do_resize, in pixels: what the longer side becomes first; native, corners: what it may be at most",
    )
    shortest: int | None = Field(None, gt=0, le=8192, description="native and corners, with do_resize: what a side is at least, in pixels")
    resolutions: tuple[tuple[PositiveInt, PositiveInt], ...] = Field((), description="(height, width) in pixels, whole tiles each")
    least_tiles: int = Field(1, gt=0, description="shape: the fewest tiles of a picture, itself as a whole not counted")
    most_tiles: int = Field(12, gt=0, le=1024, description="shape: the most tiles of a picture, itself as a whole not counted")
    least_crop: int = Field(256, gt=0, description="crops: the fewest pixels that a side of one has")
    most_crops: int = Field(4, gt=0, le=1024, description="crops: the most of a picture")
    least_ratio: float = Field(1.2, ge=1, description="crops: how much longer than the other the longer side is at least")
    alone: bool = Field(False, description="cut a picture only where it is the only one of its record")
    budget: int | None = Field(None, gt=0, description="the most tiles that a record may have; none: any number")

    @model_validator(mode="after")
    def _can_be_cut(self) -> Preprocess:
        if self.cut == "resolutions" and not self.resolutions:
            raise ValueError("cut: resolutions wants `resolutions`, a list of (height, width)")
        if self.least_tiles > self.most_tiles:
            raise ValueError(f"least_tiles is {self.least_tiles}, and most_tiles is {self.most_tiles}: no number is between them")
        if self.is_native and None in (self.shortest, self.longest):
            raise ValueError(f"cut: {self.cut} wants both `shortest` and `longest`, in pixels")
        if torn := [pair for pair in self.resolutions if pair[0] % self.tile or pair[1] % self.tile]:
            raise ValueError(f"resolutions has {torn[0][0]} x {torn[0][1]}, which is no whole number of tiles of {self.tile} pixels")
        return self

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the image processor inside `processor_config.json`, or `preprocessor_config.json`."""
        return cut_config(source)

    @classmethod
    def unheeded(cls, source: Source) -> Iterable[tuple[str, str]]:
        """Give the keys of the file that are not known here."""
        return unheeded(source)

    @property
    def is_native(self) -> bool:
        """Tiles are of unlike sizes."""
        return self.cut in ("native", "corners")

    def ports(self) -> Ports:
        """The pictures of a record in; a tensor for each tile, and what is known of the pictures, out."""
        image = port("optional[image | list[image]]", doc="a picture, or any number of them")
        sides = "high wide" if self.is_native else "tile tile"
        pixels = port(f"float[batch 3 {sides}]", space=self.space, several="tiles")
        shapes = (
            {"shapes": port("int64[batch 2]", several="tiles", doc="height and width of each tile in pixels")} if self.is_native else {}
        )
        return Ports.of({"image": image}, {"pixels": pixels, **shapes, **ABOUT, "sizes": "int64[batch media 2]"})


@component("tiles/join", kind="projector", load="modelgraft_plugins.tiles.joining:join", cache=False)
class Join(Config):
    """Lay the vectors of all tiles of a record one behind the other, and write the text that stands around them.

    image    float[batch image_tokens width]: those of all pictures, in order; zeros behind them
    lengths  how many of them each picture has
    words    for each picture the text that stands in a prompt in place of its placeholder, with one placeholder for each vector
    In the texts below {image} is all placeholders of a tile, {row} and {column} count from 1.
    """

    width: Dim = Field(None, description="width of a vector")
    placeholder: str = Field("<image>", min_length=1, description="what stands for a vector, as in the language model")
    around: str = Field("{image}", description="what stands around all tiles of a picture that was cut")
    tile: str = Field("{image}", description="what stands around one of them")
    line: str = Field("", description="what stands behind each row of tiles")
    between: str = Field("", description="what stands between two tiles")
    first: bool = Field(False, description="the picture as a whole stands before its tiles, not behind them")
    rest: str = Field("{image}", description="what stands around the picture as a whole, where it goes with its tiles")
    single: str = Field("{image}", description="what stands around a picture that was not cut")

    @model_validator(mode="after")
    def _can_be_written(self) -> Join:
        for name in ("around", "tile", "rest", "single"):
            if (text := getattr(self, name)).count("{image}") != 1:
                raise ValueError(f"{name} is {text!r}, wanted a text that holds {{image}} once")
        return self

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Take what the family of the checkpoint writes around its pictures."""
        from modelgraft_plugins.tokens import image_token

        stated = families().whole(source.root.get("model_type")).components.get("tiles/join", {})
        token = image_token(source)
        return {**stated, **({"placeholder": token} if token else {})}

    def ports(self) -> Ports:
        """The vectors of tiles in; those of records out."""
        outputs = {"image": "float[batch image_tokens width]", "lengths": "int64[batch media]", "words": "list[text]"}
        return Ports.of({"tokens": port("float[batch tokens width]", several="*"), **ABOUT}, outputs)


@component("tiles/newline", kind="projector", module="modelgraft_plugins.tiles.packing:Newline", exportable=True)
class Newline(Config):
    """Give the learned vector that stands behind each row of a picture: one for each tile; of its vectors only their width matters."""

    sizes_only: ClassVar[bool] = True
    width: Dim = Field(None, description="width of a vector")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the shape of the tensor itself."""
        shape = source.shape("")
        return {"width": shape[0]} if shape is not None else {}

    def ports(self) -> Ports:
        """The vectors of tiles in; one vector for each tile out."""
        return Ports.of({"x": "float[batch tokens width]"}, {"newline": "float[batch width]"})

    def parameters(self) -> int:
        """The learned vector."""
        return self.width or 0


@component("tiles/pack", kind="projector", load="modelgraft_plugins.tiles.packing:pack", cache=False)
class Pack(Config):
    """Lay the vectors of a picture's tiles out as one picture: without the black around it, with a learned vector behind each row.

    newline     that vector, of `tiles/newline`
    most_tiles  LLaVA-OneVision: a picture of more vectors than so many tiles have is scaled down to as many; none: it never is
    image       float[batch image_tokens width]: of each picture the vectors of the whole, then those of its rows; zeros behind all
    lengths     how many of them each picture has
    Source: arXiv 2310.03744 and the classes of transformers, `spatial_unpad`. Tiles are of square grids of patches, without a class token.
    """

    width: Dim = Field(None, description="width of a vector")
    most_tiles: int | None = Field(None, gt=0, description="tiles whose vectors a picture may have at most, itself as a whole not counted")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the aspect ratio that a model states."""
        silent = families().whole(source.root.get("model_type")).components.get("tiles/pack", {})
        aspect = source.root.get("vision_aspect_ratio", silent.get("aspect"))
        if aspect is None:
            return {}
        number = str(aspect).removeprefix(ASPECT)
        if not str(aspect).startswith(ASPECT) or not number.isdigit() or not int(number):
            raise ValueError(f"{source.text} has vision_aspect_ratio {aspect!r}, wanted {ASPECT} and a number of tiles, such as {ASPECT}9")
        return {"most_tiles": int(number)}

    def ports(self) -> Ports:
        """The vectors of tiles in; those of records out."""
        inputs: dict[str, str | Port] = {
            "tokens": port("float[batch tokens width]", several="*"), "newline": port("float[batch width]", several="*"),
            **ABOUT, "sizes": "int64[batch media 2]",
        }  # fmt: skip
        return Ports.of(inputs, {"image": "float[batch image_tokens width]", "lengths": "int64[batch media]"})


@hookimpl
def register_components(register: Callable[[Any], None]) -> None:
    """Offer the components of this plugin."""
    for subject in (Preprocess, Join, Newline, Pack):
        register(subject)
