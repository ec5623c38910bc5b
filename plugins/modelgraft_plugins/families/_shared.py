"""Words that several cards use: sizes of towers, settings of classes, parts, numbers of image processors."""

from __future__ import annotations

from typing import Any

from modelgraft.plugin import PartCard

HALF = (0.5, 0.5, 0.5)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
LANCZOS, BILINEAR, BICUBIC = 1, 2, 3  # numbers of PIL's filters

LANGUAGE = PartCard("text_config", also="text_model", language="always")
PLAIN = PartCard()  # without a config of its own

_SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act", "layer_norm_eps")
EYE_SETTINGS = {name: name for name in (*_SIZES, "image_size", "patch_size", "num_channels")}
TEXT_SETTINGS = {name: name for name in (*_SIZES, "vocab_size", "max_position_embeddings", "pad_token_id")}


def eye_sizes(hidden: int, inner: int, layers: int, heads: int, patch: int) -> dict[str, Any]:
    """The sizes of a vision transformer for pictures of 224 pixels."""
    return {
        "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
        "image_size": 224, "patch_size": patch, "num_channels": 3,
    }  # fmt: skip


def text_sizes(width: int, inner: int, heads: int, vocabulary: int, longest: int) -> dict[str, Any]:
    """The sizes of a text transformer of twelve layers."""
    return {
        "hidden_size": width, "intermediate_size": inner, "num_hidden_layers": 12, "num_attention_heads": heads, "vocab_size": vocabulary,
        "max_position_embeddings": longest,
    }  # fmt: skip


def picture_defaults(
    size: int,
    *,
    resample: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    crop: int | None = None,
    edge: bool = False,
    rgb: bool = True,
) -> dict[str, Any]:
    """What an image processor does where its file is silent; `edge`: `size` is that of the shorter side."""
    return {
        "do_resize": True, "size": {"shortest_edge": size} if edge else {"height": size, "width": size}, "resample": resample,
        "do_center_crop": crop is not None, "crop_size": {"height": crop, "width": crop} if crop is not None else None,
        "do_convert_rgb": rgb, "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": mean, "image_std": std,
    }  # fmt: skip


CLIP_PICTURES = picture_defaults(224, resample=BICUBIC, mean=CLIP_MEAN, std=CLIP_STD, crop=224, edge=True)


def eye_graph(name: str, doc: str, *, part: str = "", pooled: bool = True) -> str:
    """The text of a graph from a picture to the vectors of an eye."""
    outputs = "  tokens: vision.tokens\n" + ("  pooled: vision.pooled\n" if pooled else "")
    return f"""\
# {doc}
modelgraft: 1
name: {name}
params:
  checkpoint: {{default: "org/name", doc: hub id or folder of such an eye}}
inputs:
  image: image
nodes:
  pixels: {{use: vision/preprocess, from: "${{checkpoint}}", in: {{image: inputs.image}}}}
  vision: {{use: vision/encoder, from: "${{checkpoint}}{part}", in: {{pixels: pixels}}, frozen: true}}   # [batch tokens width]
outputs:
{outputs}"""
