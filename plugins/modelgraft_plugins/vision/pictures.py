"""How pictures are prepared, as the files of published checkpoints say it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modelgraft import Space

if TYPE_CHECKING:
    from modelgraft.checkpoints.sources import SourceView

Side = int | None

HALF = (0.5, 0.5, 0.5)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
BILINEAR, BICUBIC = 2, 3  # numbers of PIL's filters


def _defaults(size: int, *, resample: int, mean: tuple[float, ...], std: tuple[float, ...]) -> dict[str, Any]:
    square = {"height": size, "width": size}
    return {
        "do_resize": True, "size": square, "resample": resample, "do_center_crop": False, "crop_size": None,
        "do_convert_rgb": True, "do_rescale": True,
        "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": mean, "image_std": std,
    }  # fmt: skip


_CLIP = {
    **_defaults(224, resample=BICUBIC, mean=CLIP_MEAN, std=CLIP_STD),
    "size": {"shortest_edge": 224}, "do_center_crop": True, "crop_size": {"height": 224, "width": 224},
}  # fmt: skip
# what a published config means where it is silent, by the name of its image processor; `edge` in the second place: a size
# that is one number means the shorter side, not a square
PROCESSORS: Mapping[str, tuple[Mapping[str, Any], bool]] = {
    "CLIP": (_CLIP, True),
    "Llava": (_CLIP, True),
    "Siglip": (_defaults(224, resample=BICUBIC, mean=HALF, std=HALF), True),
    "ViT": ({**_defaults(224, resample=BILINEAR, mean=HALF, std=HALF), "do_convert_rgb": False}, False),
    "DeiT": (
        {
            **_defaults(256, resample=BICUBIC, mean=IMAGENET_MEAN, std=IMAGENET_STD),
            "do_center_crop": True,
            "crop_size": {"height": 224, "width": 224},
            "do_convert_rgb": False,
        },
        False,
    ),
    "Blip": (_defaults(384, resample=BICUBIC, mean=CLIP_MEAN, std=CLIP_STD), False),
    "Idefics": (_defaults(224, resample=BICUBIC, mean=CLIP_MEAN, std=CLIP_STD), False),
}
# the image processor of a model whose files do not name one
BY_MODEL: Mapping[str, str] = {
    "clip": "CLIP", "llava": "CLIP", "siglip": "Siglip", "vit": "ViT", "deit": "DeiT", "idefics": "Idefics",
    **dict.fromkeys(("blip", "blip-2", "instructblip"), "Blip"),
}  # fmt: skip


def pixel_space(mean: tuple[float, ...] | None, std: tuple[float, ...] | None) -> Space:
    """The space of pictures that were normalised with this mean and std; None: nothing is known of it."""
    return Space.of("pixels", mean=mean, std=std)


def picture_config(source: SourceView) -> dict[str, Any]:
    """Read how a checkpoint prepares its pictures.

    Raises ValueError when it does not say, or prepares them in a way that vision/preprocess does not have.
    """
    written = source.json("preprocessor_config.json")
    if written is None:
        written = (source.json("processor_config.json") or {}).get("image_processor")
    if written is None:
        raise ValueError("the source has no preprocessor_config.json and no image processor in a processor_config.json")
    name = _processor_name(written, source.root)
    if name not in PROCESSORS:
        served = ", ".join(f"{known}ImageProcessor" for known in PROCESSORS)
        raise ValueError(f"vision/preprocess has no '{name}ImageProcessor'; it has {served}")
    if written.get("do_pad"):
        raise ValueError("vision/preprocess does not pad pictures, and the preprocessor_config.json of the source has do_pad")
    defaults, is_edge = PROCESSORS[name]
    found = {key: written[key] if written.get(key) is not None else default for key, default in defaults.items()}
    found["size"] = _size(written.get("image_size") or found["size"], is_edge=is_edge)  # IDEFICS' own word, a square
    found["crop_size"] = _size(found["crop_size"], is_edge=False) if found["crop_size"] is not None else None
    return found


def _processor_name(written: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    """The image processor without the endings that say what it is written with: `CLIP`, `Siglip`."""
    name = str(written.get("image_processor_type") or written.get("feature_extractor_type") or "")
    for ending in ("Fast", "Pil", "ImageProcessor", "FeatureExtractor"):
        name = name.removesuffix(ending)
    return name or BY_MODEL.get(str(root.get("model_type", "")), "of an unnamed kind: ")


def _size(size: Any, *, is_edge: bool) -> dict[str, int]:
    """Sizes were one number before they had names."""
    if isinstance(size, int):
        return {"shortest_edge": size} if is_edge else {"height": size, "width": size}
    if isinstance(size, Mapping) and (set(size) in ({"height", "width"}, {"shortest_edge"})):
        return dict(size)
    raise ValueError(f"vision/preprocess resizes to a height and width or a shortest_edge, and the source has size {size}")
