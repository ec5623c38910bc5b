"""What the image processors of published checkpoints do where their files are silent. Compared with transformers' classes by a test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

HALF = (0.5, 0.5, 0.5)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
BILINEAR, BICUBIC = 2, 3  # numbers of PIL's filters


@dataclass(frozen=True, slots=True)
class Processor:
    """An image processor.

    defaults   what a file means where it is silent, by the fields of vision/preprocess
    is_square  a size that is one number is both sides; otherwise it is the shorter side
    """

    defaults: Mapping[str, Any]
    is_square: bool = True


def _defaults(
    size: int,
    *,
    resample: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    crop: int | None = None,
    edge: bool = False,
    rgb: bool = True,
) -> dict[str, Any]:
    return {
        "do_resize": True, "size": {"shortest_edge": size} if edge else {"height": size, "width": size}, "resample": resample,
        "do_center_crop": crop is not None, "crop_size": {"height": crop, "width": crop} if crop is not None else None,
        "do_convert_rgb": rgb, "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": mean, "image_std": std,
    }  # fmt: skip


_CLIP = _defaults(224, resample=BICUBIC, mean=CLIP_MEAN, std=CLIP_STD, crop=224, edge=True)
PROCESSORS: Mapping[str, Processor] = {
    "CLIP": Processor(_CLIP, is_square=False),
    "Llava": Processor(_CLIP, is_square=False),
    "ChineseCLIP": Processor(_CLIP, is_square=False),
    "Bit": Processor(_CLIP, is_square=False),
    "Siglip": Processor(_defaults(224, resample=BICUBIC, mean=HALF, std=HALF), is_square=False),
    "ViT": Processor(_defaults(224, resample=BILINEAR, mean=HALF, std=HALF, rgb=False)),
    "DeiT": Processor(_defaults(256, resample=BICUBIC, mean=HALF, std=HALF, crop=224, rgb=False)),
    "Pvt": Processor(_defaults(224, resample=BICUBIC, mean=IMAGENET_MEAN, std=IMAGENET_STD, rgb=False)),
    "MobileNetV1": Processor(_defaults(256, resample=BILINEAR, mean=HALF, std=HALF, crop=224, edge=True, rgb=False), is_square=False),
    "Blip": Processor(_defaults(384, resample=BICUBIC, mean=CLIP_MEAN, std=CLIP_STD)),
    "Idefics": Processor(_defaults(224, resample=BICUBIC, mean=CLIP_MEAN, std=CLIP_STD)),
}
# the image processor of a model whose files do not name one
BY_MODEL: Mapping[str, str] = {
    **dict.fromkeys((
        "aimv2", "aimv2_vision_model", "altclip", "clip", "florence2", "git", "groupvit", "kosmos-2", "metaclip_2", "mlcd", "vipllava",
        "xclip",
    ), "CLIP"),
    **dict.fromkeys(("bit", "dinov2", "focalnet", "hiera", "pixio"), "Bit"),
    **dict.fromkeys(("blip", "blip-2", "instructblip"), "Blip"),
    **dict.fromkeys(("colpali", "gemma3n", "paligemma", "siglip"), "Siglip"),
    **dict.fromkeys(("pvt", "pvt_v2"), "Pvt"),
    **dict.fromkeys((
        "clipseg", "dinat", "ijepa", "mgp-str", "swiftformer", "swin", "swinv2", "trocr", "vit", "vit_mae", "vit_msn",
    ), "ViT"),
    "chinese_clip": "ChineseCLIP", "deit": "DeiT", "idefics": "Idefics", "llava": "Llava", "mobilenet_v1": "MobileNetV1",
}  # fmt: skip
