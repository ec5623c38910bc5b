"""How pictures are prepared, as the files of published checkpoints say it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from modelgraft import Config, Dim, Space
from modelgraft.plugin import PictureCard, families
from modelgraft_plugins import processor_files
from modelgraft_plugins.processor_files import NATURAL, NUMBER, SWITCH, WORD, Wanted, Written, is_natural, is_number
from modelgraft_plugins.stated import REMARKS

if TYPE_CHECKING:
    from modelgraft.plugin import Source

Side = int | None
Size = Mapping[str, int]
Numbers = tuple[float, ...]
NO_SIDE = 1  # what stands for the side of a square where none is wanted
COLOURS = ("red", "green", "blue")

MOST_PIXELS = 100_000_000  # what a prepared picture may have at most: as many as one that is read
SIZES = ({"height", "width"}, {"shortest_edge"})  # the ways to say a size that are served


def _is_size(value: Any) -> bool:
    if isinstance(value, dict):
        return all(side is None or is_natural(side) for side in value.values())
    return is_natural(value) or _is_list(value, is_natural, 2)


def _is_list(value: Any, kind: Any, length: int) -> bool:  # kind: is_number or is_natural
    return isinstance(value, list | tuple) and len(value) == length and all(map(kind, value))


# keys that are read, and what they may hold
_COLOURS: Wanted = ("a number, or one for red, green and blue", lambda value: is_number(value) or _is_list(value, is_number, 3))
_SIZE: Wanted = ("a number of pixels, [height, width], {height, width} or {shortest_edge}", _is_size)
KEYS: Mapping[str, Wanted] = {
    **dict.fromkeys(("do_resize", "do_center_crop", "do_convert_rgb", "do_rescale", "do_normalize", "do_pad", "default_to_square"), SWITCH),
    "size": _SIZE,
    "crop_size": _SIZE,
    "resample": ("a filter of PIL, 0 to 5", lambda value: isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 5),
    "rescale_factor": NUMBER,
    "crop_middle": ("down or even", lambda value: value in ("down", "even")),  # of layouts that are not transformers' own
    "image_mean": _COLOURS,
    "image_std": _COLOURS,
    "image_processor_type": WORD,
    "feature_extractor_type": WORD,
}
# keys that one class reads beside them, by what becomes of them (PictureCard.own)
OWN_KINDS: Mapping[str, Wanted] = {"square": SWITCH, "size": NATURAL, "patches": NATURAL}
# what a step cannot do without
NEEDS = {
    "do_pad": ("image_mean",), "do_resize": ("size", "resample"), "do_center_crop": ("crop_size",), "do_rescale": ("rescale_factor",),
    "do_normalize": ("image_mean", "image_std"),
}  # fmt: skip
# keys that change nothing here: padding to a size is refused as a whole, the others are of the text that goes with a picture
IDLE = frozenset({"pad_size", "image_seq_length", "image_num_channels"})


class PictureSteps(Config):
    """What is done to each picture, or frame of a film: resize, crop, rescale, normalise."""

    do_pad: bool = Field(False, description="fill it up to a square with the colour of image_mean, before anything else (LLaVA 1.5)")
    do_resize: bool = True
    size: Mapping[str, int] = Field({"height": 224, "width": 224}, description="height and width, or shortest_edge, in pixels")
    resample: int = Field(3, ge=0, le=5, description="filter of PIL: 0 nearest, 2 bilinear, 3 bicubic")
    rounds: bool = Field(True, description="what is resized is rounded to bytes, as PIL gives it; otherwise it stays numbers (DINOv3)")
    do_center_crop: bool = False
    crop_size: Mapping[str, int] | None = Field(None, description="height and width of the crop, in pixels")
    crop_middle: Literal["down", "even"] = Field(
        "down",
        description="where a crop begins when an odd number of pixels is over: half of it cut off, or rounded to even as by torchvision",
    )
    do_convert_rgb: bool = Field(True, description="put white behind what is transparent; otherwise transparency is left out of account")
    do_rescale: bool = True
    rescale_factor: float = 1 / 255
    do_normalize: bool = True
    image_mean: Numbers | None = Field((0.5, 0.5, 0.5), description="of red, green and blue, after rescaling")
    image_std: tuple[PositiveFloat, ...] | None = (0.5, 0.5, 0.5)
    max_num_patches: int | None = Field(None, gt=0, description="resize to as many whole patches as fit; goes over size")
    patch_size: int | None = Field(None, gt=0, description="side of such a patch in pixels")
    square: bool = Field(False, description="the shorter side becomes `side`, and the middle is taken; goes over size and crop_size")
    side: Dim = Field(None, gt=0, description="of such a square, in pixels; None: as what reads the pictures wants it")

    @model_validator(mode="before")
    @classmethod
    def _has_a_side(cls, given: Any) -> Any:
        """Where it is no square, nobody has to find its side: the solver asks for what is None."""
        if not isinstance(given, Mapping) or given.get("square") or given.get("side") is not None:
            return given
        return {**given, "side": NO_SIDE}

    @model_validator(mode="after")
    def _can_be(self) -> Self:
        check_size(self.size, name="size")
        if self.crop_size is not None:
            check_size(self.crop_size, name="crop_size")
            if set(self.crop_size) != {"height", "width"}:
                raise ValueError(f"crop_size is {dict(self.crop_size)}, wanted {{height, width}}")
        if self.side not in (None, NO_SIDE) and not self.square:
            raise ValueError(f"side is {self.side}, which belongs to square: true")
        if self.side is not None:
            check_size({"shortest_edge": self.side}, name="side")
        if self.square and self.max_num_patches is not None:
            raise ValueError("square and max_num_patches both decide the size: take one of them")
        if self.max_num_patches is not None and self.patch_size is None:
            raise ValueError(f"max_num_patches is {self.max_num_patches}, and there is no patch_size")
        for name in ("image_mean", "image_std"):
            if (numbers := getattr(self, name)) is not None and len(numbers) != len(COLOURS):
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

    @property
    def space(self) -> Space:
        """The space of what is prepared."""
        mean, std = (self.image_mean, self.image_std) if self.do_normalize else (None, None)
        return pixel_space(mean, std)

    @property
    def axes(self) -> str:
        """What the sizes of a prepared picture are called on ports."""
        return "side side" if self.square else "height width"

    def settled(self) -> Self:
        """The same steps, with the size and the crop that a square means."""
        if not self.square:
            return self
        sides = {"height": self.side, "width": self.side}
        wanted = {"size": {"shortest_edge": self.side}, "crop_size": sides, "do_resize": True, "do_center_crop": True}
        return self.model_copy(update={**wanted, "square": False, "side": None})

    def _side(self, name: str) -> Side:
        if self.do_center_crop and self.crop_size:
            return self.crop_size[name]
        return self.size.get(name) if self.do_resize and self.max_num_patches is None else None


def pixel_space(mean: tuple[float, ...] | None, std: tuple[float, ...] | None) -> Space:
    """The space of pictures that were normalised with this mean and std; None: nothing is known of it."""
    return Space.of("pixels", mean=mean, std=std)


def picture_config(source: Source) -> dict[str, Any]:
    """Read how a checkpoint prepares its pictures.

    Raises ValueError when it does not say, or prepares them in a way that vision/preprocess does not have, and SourceError
    `source-damaged` for values that are of another kind than their keys want.
    """
    written = processor_files.find(source, "image_processor")
    if written is None:
        raise ValueError("the source has no preprocessor_config.json and no image processor in a processor_config.json")
    written.check(KEYS)
    name = processor_name(written, source.root)
    card = families().pictures.get(name)
    if card is None:
        served = ", ".join(f"{known}ImageProcessor" for known in sorted(families().pictures))
        raise ValueError(f"vision/preprocess has no '{name}ImageProcessor'; it has {served}")
    written.check({key: OWN_KINDS[kind] for key, kind in card.own.items()})
    if written.values.get("do_pad") and "do_pad" not in card.defaults:
        raise ValueError(f"vision/preprocess does not pad pictures, and {written.place} has do_pad")
    return picture_values(written, card)


def unheeded(source: Source) -> Iterator[tuple[str, str]]:
    """What a source states about its pictures and vision/preprocess does not know."""
    written = processor_files.find(source, "image_processor")
    card = families().pictures.get(processor_name(written, source.root)) if written is not None else None
    own = card.own if card is not None else {}
    yield from processor_files.unheeded(written, {*KEYS, *own, *IDLE}, "vision/preprocess")
    yield from processor_files.unheeded_of_processor(source)
    yield from ((f"{source.text}: {sentence}", way) for sentence, way in source.root.get(REMARKS, ()))


def processor_name(written: Written, root: Mapping[str, Any]) -> str:
    """The image processor without the endings that say what it is written with: `CLIP`, `Siglip`."""
    given = written.values.get("image_processor_type") or written.values.get("feature_extractor_type")
    name = str(given or root.get("image_processor_type") or "")
    for ending in ("Fast", "Pil", "ImageProcessor", "FeatureExtractor"):
        name = name.removesuffix(ending)
    return name or families().whole(root.get("model_type")).pictures or "of an unnamed kind: "


def picture_values(written: Written, card: PictureCard) -> dict[str, Any]:
    """The fields of vision/preprocess: what is written, else what the class does by itself."""
    found = {key: written.values.get(key, default) for key, default in card.defaults.items()}
    found |= {"crop_middle": written.values["crop_middle"]} if written.values.get("crop_middle") is not None else {}
    is_square = written.values.get("default_to_square", card.is_square)
    for key, kind in card.own.items():
        if kind == "size" and written.values.get(key) is not None:  # goes over its size
            found["size"], is_square = written.values[key], True
        if kind == "square" and written.values.get(key):  # a square of the class's own size
            found["size"], is_square = card.defaults["size"]["shortest_edge"], True
    if "patches" in card.own.values():  # no size is read, and nothing is cropped
        found |= {"size": {"shortest_edge": found["patch_size"]}, "do_center_crop": False}
    _fill_null(found, written, card)
    found["size"] = _size(found["size"], is_square=bool(is_square))
    found["crop_size"] = _size(found["crop_size"], is_square=True) if found["crop_size"] is not None else None
    for key in ("image_mean", "image_std"):
        found[key] = (found[key],) * 3 if is_number(found[key]) else found[key]
    return found


def _fill_null(found: dict[str, Any], written: Written, card: PictureCard) -> None:
    """What null means, which transformers does not take for silence: no; and no number where none is read."""
    for key, value in found.items():
        if value is None and key.startswith("do_"):
            found[key] = False
    for switch, keys in NEEDS.items():
        for key in keys:
            if found[key] is None and found.get(switch):
                raise ValueError(f"{written.place} has {switch} and no {key}")
    for key in ("size", "resample", "rescale_factor"):
        found[key] = card.defaults[key] if found[key] is None else found[key]


def _size(size: Any, *, is_square: bool) -> Size:
    """Sizes were one number, or a pair, before they had names."""
    if isinstance(size, int):
        return {"height": size, "width": size} if is_square else {"shortest_edge": size}
    if isinstance(size, list | tuple):
        return {"height": size[0], "width": size[1]}
    named = {name: side for name, side in size.items() if side is not None}
    if set(named) not in SIZES:
        raise ValueError(f"vision/preprocess resizes to a height and width or a shortest_edge, and the source has size {dict(size)}")
    return named


def check_size(size: Size, *, name: str) -> None:
    """Raise ValueError for a size that is not said in one of the two ways, or that no picture can have."""
    if set(size) not in SIZES or not all(map(is_natural, size.values())):
        raise ValueError(f"{name} is {dict(size)}, wanted {{height, width}} or {{shortest_edge}}, in pixels above 0")
    sides = [*size.values()] * (2 if len(size) == 1 else 1)
    if sides[0] * sides[1] > MOST_PIXELS:
        raise ValueError(f"{name} is {dict(size)}: {sides[0]} x {sides[1]} are more than {MOST_PIXELS:,} pixels")
