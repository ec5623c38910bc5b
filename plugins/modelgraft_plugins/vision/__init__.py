"""Pictures: preparing them, and the towers that turn them into vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PositiveFloat, model_validator

from modelgraft import Config, Ports, component, hookimpl, port
from modelgraft_plugins.vision.pictures import Side, check_size, picture_config, pixel_space, unheeded
from modelgraft_plugins.vision.processors import HALF
from modelgraft_plugins.vision.towers import DEFAULTS, FAMILIES, INSIDE, MODEL_TYPES, NAMES, TABLE, WHOLE_MODELS, count
from modelgraft_plugins.widths import uneven_heads

if TYPE_CHECKING:
    from modelgraft.plugin import SolvedNode, Source

Numbers = tuple[float, ...]


@component("vision/preprocess", kind="preprocess", load="modelgraft_plugins.vision.prepare:load", cache=False)
class Preprocess(Config):
    """Resize, crop and normalise pictures as a checkpoint's own image processor does.

    size  {height, width}, or {shortest_edge} to keep the shape of the picture; a picture is resized only with do_resize.
    many  each record is a list of pictures; where a record has fewer than others, empty ones (zeros) stand at its end
    Pictures of any mode become RGB first.
    """

    do_resize: bool = True
    size: Mapping[str, int] = Field({"height": 224, "width": 224}, description="height and width, or shortest_edge, in pixels")
    resample: int = Field(3, ge=0, le=5, description="filter of PIL: 0 nearest, 2 bilinear, 3 bicubic")
    do_center_crop: bool = False
    crop_size: Mapping[str, int] | None = Field(None, description="height and width of the crop, in pixels")
    do_convert_rgb: bool = Field(True, description="put white behind what is transparent; otherwise transparency is left out of account")
    do_rescale: bool = True
    rescale_factor: float = 1 / 255
    do_normalize: bool = True
    image_mean: Numbers | None = Field((0.5, 0.5, 0.5), description="of red, green and blue, after rescaling")
    image_std: tuple[PositiveFloat, ...] | None = (0.5, 0.5, 0.5)
    many: bool = False

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the image processor inside `processor_config.json`, or `preprocessor_config.json`."""
        return picture_config(source)

    @classmethod
    def unheeded(cls, source: Source) -> Iterable[tuple[str, str]]:
        """Give the keys of the file that are not known here."""
        return unheeded(source)

    @model_validator(mode="after")
    def _can_be(self) -> Preprocess:
        check_size(self.size, name="size")
        if self.crop_size is not None:
            check_size(self.crop_size, name="crop_size")
            if set(self.crop_size) != {"height", "width"}:
                raise ValueError(f"crop_size is {dict(self.crop_size)}, wanted {{height, width}}")
        for name in ("image_mean", "image_std"):
            if (numbers := getattr(self, name)) is not None and len(numbers) != len(HALF):
                raise ValueError(f"{name} has {len(numbers)} numbers, wanted one for red, green and blue each")
        return self

    @property
    def height(self) -> Side:
        """Height of the prepared picture in pixels; None when it depends on the picture."""
        return self._side("height")

    @property
    def width(self) -> Side:
        """Width of the prepared picture in pixels; None when it depends on the picture."""
        return self._side("width")

    def _side(self, name: str) -> Side:
        if self.do_center_crop and self.crop_size:
            return self.crop_size[name]
        return self.size.get(name) if self.do_resize else None

    def ports(self) -> Ports:
        """A picture in, or a list of them, and a tensor out, in the space of this mean and std."""
        mean, std = (self.image_mean, self.image_std) if self.do_normalize else (None, None)
        given, axes = ("list[image]", "batch images") if self.many else ("image", "batch")
        return Ports.of({"image": given}, {"pixels": port(f"float[{axes} 3 height width]", space=pixel_space(mean, std))})


@component("vision/count", kind="preprocess", inputs={"images": "list[image]"}, outputs={"counts": "int64[batch]"})
def count_pictures(images: list[list[Any]]) -> Any:
    """Count the pictures of each record: vision/preprocess fills a batch up with empty ones where records have unlike numbers."""
    import torch

    return torch.tensor([len(record) for record in images], dtype=torch.int64)


@component("vision/encoder", kind="encoder", module="modelgraft_plugins.vision.modules:Encoder", exportable=True)
class Encoder(Config):
    """Turn prepared pictures into one vector per patch, with a vision transformer.

    layer   which layer gives the tokens: None for the tower's own output, after its last norm; otherwise the number that
            transformers' `hidden_states` has, -2 for the last layer but one
    select  "patches" leaves the class token out, where there is one
    many    several pictures per record: pixels and results have an axis `images` behind `batch`
    The output `pooled` is there when the tower runs to its end: the class token, or what SigLIP's attention head gives.
    """

    family: Literal["clip", "siglip", "vit", "eva"] = Field("clip", description="how the tower is built")
    hidden_size: int = Field(768, gt=0)
    intermediate_size: int = Field(3072, gt=0)
    num_hidden_layers: int = Field(12, gt=0)
    num_attention_heads: int = Field(12, gt=0)
    image_size: int = Field(224, gt=0)
    patch_size: int = Field(16, gt=0)
    num_channels: int = Field(3, gt=0)
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    qkv_bias: bool = True
    attention_head: bool = Field(True, description="siglip: pool with an attention head")
    layer: int | None = None
    select: Literal["all", "patches"] = "all"
    interpolate: bool = Field(False, description="take pictures of other sizes, with positions interpolated")
    many: bool = False
    image_mean: Numbers | None = Field(None, description="mean that the pictures must have been normalised with; None: any")
    image_std: Numbers | None = None

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read a vision config; the layer and selection of a LLaVA checkpoint come from around it."""
        config = source.config
        kind = config.get("model_type") or INSIDE.get(str(source.root.get("model_type")), "")
        if kind not in MODEL_TYPES:
            part = WHOLE_MODELS.get(kind)
            way = f"; its tower is the part {part}: write #{part} behind the source" if part else f"; it serves {', '.join(MODEL_TYPES)}"
            raise ValueError(f"vision/encoder has no tower for model_type '{kind}'{way}")
        family = MODEL_TYPES[kind]
        names = NAMES.get(kind, {})
        found = {
            name: config.get(names.get(name, name), default) for name, default in DEFAULTS.get(kind, FAMILIES[family].defaults).items()
        }
        if family == "siglip":
            found["attention_head"] = config.get("vision_use_head", True)
        return {"family": family, **found, **_selection(source), **_normalisation(source)}

    @classmethod
    def unheeded(cls, source: Source) -> list[tuple[str, str]]:
        """What the config of the tower states and this does not know."""
        return TABLE.unheeded(_tower_config(source), source.text)

    @property
    def has_class(self) -> bool:
        """A class token is among the tokens that are given."""
        return FAMILIES[self.family].has_class and self.select == "all"

    @property
    def tokens(self) -> Side:
        """Number of vectors per picture; None when pictures may have any size."""
        return None if self.interpolate else (self.image_size // self.patch_size) ** 2 + self.has_class

    @property
    def height(self) -> Side:
        """Height of the pictures in pixels; None when they may have any."""
        return None if self.interpolate else self.image_size

    @property
    def width(self) -> Side:
        """Width of the pictures in pixels; None when they may have any."""
        return None if self.interpolate else self.image_size

    @property
    def has_pooled(self) -> bool:
        """The tower runs to its end and gives one vector for the picture."""
        return self.layer is None and (self.family != "siglip" or self.attention_head)

    def ports(self) -> Ports:
        """Pixels in; tokens, and where there is one the pooled vector, out."""
        axes = "batch images" if self.many else "batch"
        pixels = port(f"float[{axes} num_channels height width]", space=pixel_space(self.image_mean, self.image_std))
        outputs = {"tokens": f"float[{axes} tokens hidden_size]"}
        if self.has_pooled:
            outputs["pooled"] = f"float[{axes} hidden_size]"
        return Ports.of({"pixels": pixels}, outputs)

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """The heads must share the width evenly."""
        return uneven_heads(node.name, self.hidden_size, self.num_attention_heads)

    def parameters(self) -> int:
        """Count the whole tower, also where only some of its layers run."""
        return count(
            self.family, width=self.hidden_size, inner=self.intermediate_size, layers=self.num_hidden_layers, image=self.image_size,
            patch=self.patch_size, channels=self.num_channels, qkv_bias=self.qkv_bias, head=self.family == "siglip" and self.attention_head,
        )  # fmt: skip


def _tower_config(source: Source) -> Mapping[str, Any]:
    """Without the other parts of a model that is a tower with a head, such as ViT."""
    return {key: value for key, value in source.config.items() if not key.endswith("_config")}


def _selection(source: Source) -> dict[str, Any]:
    """The layer and the tokens that the model around the tower takes from it."""
    around = source.root
    if around.get("model_type") != "llava":
        return {}
    layer = around.get("vision_feature_layer", -2)
    if not isinstance(layer, int):
        raise ValueError(  # noqa: TRY004 what `from_source` raises for a source that it does not serve
            f"vision/encoder gives one layer; this checkpoint joins several: vision_feature_layer is {layer}"
        )
    return {"layer": layer, "select": "patches" if around.get("vision_feature_select_strategy", "default") == "default" else "all"}


def _normalisation(source: Source) -> dict[str, Any]:
    """The mean and std that the checkpoint's own pictures are normalised with."""
    try:
        prepared = picture_config(source)
    except ValueError:
        return {}
    return {name: prepared[name] for name in ("image_mean", "image_std") if prepared.get("do_normalize")}


@hookimpl
def register_components(register: Callable[[Any], None]) -> None:
    """Offer the components of this plugin."""
    register(Preprocess)
    register(count_pictures)
    register(Encoder)
