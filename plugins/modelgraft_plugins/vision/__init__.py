"""Pictures: preparing them, and the towers that turn them into vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PositiveInt, model_validator

from modelgraft import Config, Ports, component, hookimpl, port
from modelgraft.plugin import AUTO, KEPT, TowerCard, families
from modelgraft_plugins.counted import counted, no_card
from modelgraft_plugins.cut_pictures import normalisation
from modelgraft_plugins.pictures import Numbers, PictureSteps, Side, picture_config, pixel_space, unheeded
from modelgraft_plugins.vision.nfnets import NFNet
from modelgraft_plugins.vision.patches import torn_patches
from modelgraft_plugins.vision.resnets import ResNet
from modelgraft_plugins.vision.towers import MEDIUM, NEEDED, OWN, UNKNOWN, card_of, stated, styles, table
from modelgraft_plugins.widths import check_layer, uneven_heads

PRESETS = Path(__file__).parent / "presets"
PUBLISHED = {"vit-giant-14": "vit-g-14", "vit-gigantic-14": "vit-G-14"}  # folder -> name: not every disk tells g from G

if TYPE_CHECKING:
    from modelgraft.plugin import SolvedNode, Source


@component("vision/preprocess", kind="preprocess", load="modelgraft_plugins.vision.prepare:load", arrays=True, cache=False)
class Preprocess(PictureSteps):
    """Resize, crop and normalise pictures as a checkpoint's own image processor does.

    size  {height, width}, or {shortest_edge} to keep the shape of the picture; a picture is resized only with do_resize.
    max_num_patches  keeps the shape of the picture as far as whole patches of `patch_size` can
    square  of a side that what reads the pictures decides, in place of a size
    many  each record is a list of pictures; where a record has fewer than others, empty ones (zeros) stand at its end
    Pictures of any mode become RGB first.
    """

    many: bool = False

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the image processor inside `processor_config.json`, or `preprocessor_config.json`."""
        return picture_config(source)

    @classmethod
    def unheeded(cls, source: Source) -> Iterable[tuple[str, str]]:
        """Give the keys of the file that are not known here."""
        return unheeded(source)

    def ports(self) -> Ports:
        """A picture in, or a list of them, and a tensor out, in the space of this mean and std."""
        given, axes = ("list[image]", "batch images") if self.many else ("image", "batch")
        return Ports.of({"image": given}, {"pixels": port(f"float[{axes} 3 {self.axes}]", space=self.space)})


@component("vision/count", kind="preprocess", arrays=True, inputs={"images": "list[image]"}, outputs={"counts": "int64[batch]"})
def count_pictures(images: list[list[Any]]) -> Any:
    """Count the pictures of each record: vision/preprocess fills a batch up with empty ones where records have unlike numbers."""
    import numpy

    return numpy.array([len(record) for record in images], numpy.int64)


@component("vision/encoder", kind="encoder", module="modelgraft_plugins.vision.modules:Encoder", exportable=True, keywords=("eye",))
class Encoder(Config):
    """Turn prepared pictures into one vector per patch, with a vision transformer.

    layer   which layer gives the tokens: None for the tower's own output, after its last norm; otherwise the number that
            transformers' `hidden_states` has, -2 for the last layer but one
    select  "patches" leaves the class token out, where there is one
    many    several pictures per record: pixels and results have an axis `images` behind `batch`
    positions   of pictures of another size than the tower was trained at, how its table of places is brought to their grid. Published
            code does it in three ways, which differ by as much as the table holds: "hf", bicubic, as transformers; "official",
            bilinear with the corners in place, as the authors of ViT; "timm", bicubic and smoothed where it shrinks, as timm
    pre_logits  vit: `pooled` is what the layer before the classifier makes of the class token (a linear layer and tanh, of so many
            numbers), which checkpoints of its pre-training have; transformers calls it pooler, and fine-tuned ones hold noise in it
    The output `pooled` is there when the tower runs to its end: the class token, or what SigLIP's attention head gives.
    """

    family: str = Field("clip", description="how the tower is built: a style such as clip, siglip, vit or eva; auto: by its `model`")
    model: dict[str, Any] = Field({}, description="auto: the tower's own config, as in its config.json; the fields below go over it")
    hidden_size: int = Field(768, gt=0)
    intermediate_size: int = Field(3072, gt=0)
    num_hidden_layers: int = Field(12, gt=0)
    num_attention_heads: int = Field(12, ge=0)
    image_size: Annotated[int, Field(gt=0)] | tuple[PositiveInt, PositiveInt] = Field(
        224, description="side in pixels, or (height, width): what the table of places was trained at"
    )
    patch_size: int = Field(16, gt=0)
    num_channels: int = Field(3, gt=0)
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    qkv_bias: bool = True
    attention_head: bool = Field(True, description="siglip: pool with an attention head")
    layer: Annotated[int | None, KEPT] = None
    select: Annotated[Literal["all", "patches"], KEPT] = "all"
    interpolate: bool = Field(False, description="take pictures of other sizes, with positions interpolated")
    positions: Literal["hf", "official", "timm"] = Field("hf", description="how positions are interpolated")
    pre_logits: int | None = Field(None, gt=0, description="vit: numbers of the layer before the classifier; none: there is none")
    many: bool = False
    trains_last: int = Field(0, ge=0, description="so many last layers of a frozen tower are trained nevertheless, as a plan counts them")
    shapes: bool = Field(False, description="pictures of one call are filled up to one size, and `shapes` says what of each is there")
    image_mean: Numbers | None = Field(None, description="mean that the pictures must have been normalised with; None: any")
    image_std: Numbers | None = None

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read a vision config; the layer and selection of the model around it come from there."""
        config = _tower_config(source)
        kind = _kind_of(source, config)
        card = families().of_medium(MEDIUM).get(kind)
        if card is None and not _is_clear(source, kind):
            raise ValueError(_refusal(kind))
        card = card or UNKNOWN
        model = {"model": {**config, "model_type": kind}} if card.style == AUTO else {}
        words = {word: value for word, value in stated(config, card).items() if word in cls.model_fields}
        words |= {"shapes": True} if card.more.get("shapes") else {}
        words |= {word: config[word] for word in OWN if config.get(word) is not None and word in card.obeyed}
        return {"family": card.style, **model, **words, **_selection(source), **normalisation(source)}

    @classmethod
    def unheeded(cls, source: Source) -> list[tuple[str, str]]:
        """What the config of the tower states and this does not know; and where no card knows the tower."""
        config = _tower_config(source)
        kind = _kind_of(source, config)
        card = families().of_medium(MEDIUM).get(kind)
        if card is None and _is_clear(source, kind):
            return no_card(source, kind)
        return [] if card is not None and card.style == AUTO else table().unheeded(config, source.text)

    @model_validator(mode="after")
    def _can_be_built(self) -> Encoder:
        if self.family not in styles():
            raise ValueError(f"family is {self.family!r}, wanted one of {', '.join(styles())}")
        if self.family == AUTO and "model_type" not in self.model:
            raise ValueError("family: auto wants `model`, the tower's own config with its model_type")
        if self.num_attention_heads == 0:
            raise ValueError(
                "num_attention_heads is 0: the files do not say how many heads share the width; say it with num_attention_heads"
            )
        check_layer(self.layer, self.num_hidden_layers)
        if self.shapes and (self.many or not self.card.more.get("shapes")):
            why = "many pictures for each record have one size" if self.many else f"the family {self.family} takes whole pictures alone"
            raise ValueError(f"shapes is true, and {why}")
        if self.pre_logits is not None and self.card.more.get("pre_logits") is None:
            raise ValueError(f"pre_logits is {self.pre_logits}, and the family {self.family} has no such layer")
        if self.select == "patches" and self.card is UNKNOWN:
            raise ValueError(
                f"select: patches is not known of {self.model.get('model_type')}: no card says which of its tokens are patches"
            )
        return self

    @property
    def card(self) -> TowerCard:
        """What its family says of it."""
        return card_of(self.family, self.model)

    @property
    def lead(self) -> int:
        """Tokens before those of the patches, such as a class token."""
        lead = self.card.lead
        if isinstance(lead, int):
            return lead
        key, _, more = lead.partition("+")
        count: Any = self.model.get(key, self.card.defaults.get(key, 0))  # Any: of a config
        return int(count) + int(more or 0)

    @property
    def takes_any_size(self) -> bool:
        """Pictures may have any size."""
        open_ = self.card.any_size
        any_size = bool(self.model.get(open_, self.card.defaults.get(open_))) if isinstance(open_, str) else open_
        return self.interpolate or any_size or (self.family == AUTO and "image_size" not in stated(self.model, self.card))

    @property
    def tokens(self) -> Side:
        """Number of vectors per picture; None when pictures may have any size."""
        if self.takes_any_size or self.card is UNKNOWN:
            return None
        rows, columns = self.grid
        return rows * columns + (self.lead if self.select == "all" else 0)

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the pictures that the tower was trained at, in pixels."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the table of places."""
        return self.sides[0] // self.patch_size, self.sides[1] // self.patch_size

    @property
    def height(self) -> Side:
        """Height of the pictures in pixels; None when they may have any."""
        return None if self.takes_any_size else self.sides[0]

    @property
    def width(self) -> Side:
        """Width of the pictures in pixels; None when they may have any."""
        return None if self.takes_any_size else self.sides[1]

    @property
    def pooled_size(self) -> int:
        """Numbers of `pooled`."""
        return self.pre_logits or self.hidden_size

    @property
    def has_pooled(self) -> bool:
        """The tower runs to its end and gives one vector for the picture."""
        gives = self.card.pooled
        if isinstance(gives, str):
            gives = bool(getattr(self, gives) if gives in type(self).model_fields else self.model.get(gives, True))
        return self.layer is None and gives

    def facts(self) -> dict[str, Any]:
        """The config that transformers builds the tower from."""
        card = self.card
        if self.family != AUTO:
            own = {} if self.pre_logits is None else card.more["pre_logits"](self.pre_logits)
            return {**{key: getattr(self, word) for word, key in card.settings.items()}, **card.fixed, **own}
        keys = {word: card.names.get(word, word) for word in stated(self.model, card) if word in type(self).model_fields}
        return {**self.model, **{key: getattr(self, word) for word, key in keys.items()}}

    def ports(self) -> Ports:
        """Pixels in; tokens, and where there is one the pooled vector, out."""
        axes = "batch images" if self.many else "batch"
        pixels = port(f"float[{axes} num_channels height width]", space=pixel_space(self.image_mean, self.image_std))
        if self.shapes:
            shapes = port("int64[batch 2]", doc="height and width in pixels of each picture, without what fills it up")
            there = port("bool[batch tokens]", doc="which patches are whole ones of the picture")
            return Ports.of({"pixels": pixels, "shapes": shapes}, {"tokens": "float[batch tokens hidden_size]", "there": there})
        outputs = {"tokens": f"float[{axes} tokens hidden_size]"}
        if self.has_pooled:
            outputs["pooled"] = f"float[{axes} pooled_size]"
        return Ports.of({"pixels": pixels}, outputs)

    def multiples(self) -> Mapping[str, int]:
        """Pictures of any size are whole patches."""
        return dict.fromkeys(("height", "width"), self.patch_size) if self.takes_any_size else {}

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """The heads must share the width evenly, and patches the sides of pictures of any size."""
        yield from uneven_heads(node.name, self.hidden_size, self.num_attention_heads)
        if self.takes_any_size:
            yield from torn_patches(node, self.patch_size)

    def parameters(self) -> int | None:
        """Count the whole tower, also where only some of its layers run; None where that takes building it."""
        if self.card.count is None:
            return counted(self.facts())
        return self.card.count(self._counted())

    def trained_parameters(self) -> int | None:
        """Of a frozen tower its last layers, where some are named; None where that takes building it."""
        if self.card.count is None:
            return None if self.trains_last else 0
        facts = self._counted()
        rest = {**facts, "num_hidden_layers": max(self.num_hidden_layers - self.trains_last, 0)}
        return self.card.count(facts) - self.card.count(rest)

    def _counted(self) -> dict[str, Any]:
        """What the formula of its card is given."""
        return {**self.card.defaults, **(self.facts() if self.family == AUTO else self.model_dump())}


@component("vision/map", kind="projector", load="modelgraft_plugins.vision.maps:load", cache=False)
class Map(Config):
    """Lay vectors of patches, row by row and without a class token, out as the map of the picture that they came from.

    pixels  the prepared picture, whose sides say how many rows and columns there are
    """

    patch_size: int = Field(gt=0, description="side of a patch in pixels")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the side of the patches that an eye makes."""
        return {"patch_size": Encoder.from_source(source).get("patch_size")}

    def ports(self) -> Ports:
        """Vectors in a row, and the picture, in; a map out."""
        inputs = {"tokens": "float[batch tokens channels]", "pixels": "float[batch colours height width]"}
        return Ports.of(inputs, {"map": "float[batch channels rows columns]"})


def _kind_of(source: Source, config: Mapping[str, Any]) -> str:
    """The model type of a tower; files of Idefics 2 and 3 state that of the whole in its place."""
    stated, whole = config.get("model_type"), source.root.get("model_type")
    inside = families().inside(whole, MEDIUM)[1]
    is_own = source.config != source.root  # a part without a config of its own reads that of the whole
    return inside if inside and (stated is None or (is_own and stated == whole)) else stated or inside


def _is_clear(source: Source, kind: str) -> bool:
    """A config of which no card speaks says by itself what its tower gives: one tower, its width, its patches."""
    config = _tower_config(source)
    is_one = bool(kind) and families().of(kind) is None and config == source.config
    return is_one and all(key in stated(config, UNKNOWN) for key in NEEDED)


def _refusal(kind: str) -> str:
    part = families().inside(kind, MEDIUM)[0]
    known = ", ".join(sorted(families().of_medium(MEDIUM)))
    way = f"; its tower is the part {part}: write #{part} behind the source" if part else f"; it serves {known}"
    return f"vision/encoder has no tower for model_type '{kind}'{way}"


def _tower_config(source: Source) -> Mapping[str, Any]:
    """Without the other parts of a model that is a tower with a head, such as ViT."""
    return {key: value for key, value in source.config.items() if not key.endswith("_config")}


def _selection(source: Source) -> dict[str, Any]:
    """The layer and the tokens that the model around the tower takes from it."""
    around, whole = source.root, families().whole(source.root.get("model_type"))
    if whole.layer is None:
        return {}
    key, silent = whole.layer
    layer = around.get(key, silent)
    if isinstance(layer, list) and len(layer) == 1:
        layer = layer[0]
    if not isinstance(layer, int):
        raise ValueError(f"vision/encoder gives one layer; this checkpoint joins several: {key} is {layer}")  # noqa: TRY004 as `from_source` does
    select = around.get(whole.select[0], whole.select[1]) if whole.select is not None else "full"
    layer = None if layer == -1 and whole.ends else layer
    return {"layer": layer, "select": "patches" if select == "default" else "all"}


@hookimpl
def register_components(register: Callable[[Any], None]) -> None:
    """Offer the components of this plugin."""
    register(Preprocess)
    register(count_pictures)
    register(Encoder)
    register(ResNet)
    register(NFNet)
    register(Map)


@hookimpl
def register_recorded_configs(register: Callable[[str, Any], None]) -> None:
    """Offer the published sizes of ViT, of NFNet-F, and of CLIPs whose eye is a residual network, in the words of their authors' code."""
    for folder in sorted(PRESETS.iterdir()):
        register(f"preset:{PUBLISHED.get(folder.name, folder.name)}", folder)
