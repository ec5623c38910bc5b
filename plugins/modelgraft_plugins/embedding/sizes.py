"""How many numbers each tower of ImageBind has: by the words of the published code, and by the shapes of the published file.

Light: nothing here reads a tensor. Source: `ImageBindModel` of the published code, whose silent values stand here too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from modelgraft_plugins.stated import Table

MODALITIES = ("vision", "text", "audio", "depth", "thermal", "imu")
CHANNELS: Mapping[str, int] = {"vision": 3, "audio": 1, "depth": 1, "thermal": 1, "imu": 6}  # of what a tower takes

# what the published code takes where nothing is said
SILENT: Mapping[str, Any] = {
    "out_embed_dim": 768, "vision_embed_dim": 1024, "vision_num_blocks": 24, "vision_num_heads": 16, "text_embed_dim": 768,
    "text_num_blocks": 12, "text_num_heads": 12, "audio_embed_dim": 768, "audio_num_blocks": 12, "audio_num_heads": 12,
    "depth_embed_dim": 384, "depth_num_blocks": 12, "depth_num_heads": 8, "thermal_embed_dim": 768, "thermal_num_blocks": 12,
    "thermal_num_heads": 12, "imu_embed_dim": 512, "imu_num_blocks": 6, "imu_num_heads": 8, "audio_num_mel_bins": 128,
    "audio_target_len": 204, "audio_kernel_size": 16, "audio_stride": 10, "depth_kernel_size": 16, "thermal_kernel_size": 16,
    "imu_kernel_size": 8, "kernel_size": (2, 14, 14), "video_frames": 2, "image_size": 224, "depth_size": 224, "thermal_size": 224,
    "imu_steps": 2000, "context_length": 77, "vocab_size": 49408,
}  # fmt: skip
DROPPED = frozenset({"audio_drop_path", "depth_drop_path", "thermal_drop_path", "imu_drop_path"})  # blocks left out in training
TABLE = Table("config.json", frozenset(SILENT), frozenset({"model_type", "architectures", *DROPPED}))

# heads of attention by modality and width, which no shape says: those of the published model
HEADS: Mapping[tuple[str, int], int] = {
    ("vision", 1280): 16, ("text", 1024): 16, ("audio", 768): 12, ("depth", 384): 8, ("thermal", 768): 12, ("imu", 512): 8,
}  # fmt: skip
SOUND = {"height": 128, "width": 204, "stride": 10}  # of the published spectrograms, of which the shapes say how many patches they have


def by_words(config: Mapping[str, Any], modality: str) -> dict[str, Any]:
    """The fields of a tower by a config in the words of the published code. Raises ValueError for patches that are no squares."""
    stated = {**SILENT, **config}
    found = {
        "hidden_size": stated[f"{modality}_embed_dim"],
        "num_hidden_layers": stated[f"{modality}_num_blocks"],
        "num_attention_heads": stated[f"{modality}_num_heads"],
        "embedding_size": stated["out_embed_dim"],
    }
    match modality:
        case "text":
            return {**found, "context_length": stated["context_length"], "vocab_size": stated["vocab_size"]}
        case "imu":
            kernel = stated["imu_kernel_size"]
            return {**found, "steps": stated["imu_steps"], "kernel": kernel, "stride": kernel}
        case "audio":
            sides = {"height": stated["audio_num_mel_bins"], "width": stated["audio_target_len"]}
            return {**found, **sides, "kernel": stated["audio_kernel_size"], "stride": stated["audio_stride"]}
        case "vision":
            frames, kernel = _cube(stated["kernel_size"])
            if frames != stated["video_frames"]:
                raise ValueError(f"kernel_size reaches through {frames} frames, and video_frames is {stated['video_frames']}")
            return {**found, **_square(stated["image_size"], kernel), "frames": frames}
    return {**found, **_square(stated[f"{modality}_size"], stated[f"{modality}_kernel_size"])}


def by_shapes(shapes: Mapping[str, tuple[int, ...]], modality: str) -> dict[str, Any]:
    """The fields of a tower by the shapes of the published file; what they do not say is left out. Raises ValueError without this tower."""
    entry, trunk = f"modality_preprocessors.{modality}.", f"modality_trunks.{modality}.blocks."
    inside = {key.removeprefix(entry): shape for key, shape in shapes.items() if key.startswith(entry)}
    places = next((shape for key, shape in inside.items() if key.endswith("pos_embed")), None)
    head = next((shape for key, shape in shapes.items() if re.fullmatch(rf"modality_heads\.{modality}\.(proj\.1|[23])\.weight", key)), None)
    if places is None or head is None:
        raise ValueError(f"it holds no tower for {modality}: there is no {entry}...pos_embed with a head of its own")
    width = places[-1]
    blocks = {key.removeprefix(trunk).partition(".")[0] for key in shapes if key.startswith(trunk)}
    found: dict[str, Any] = {"hidden_size": width, "num_hidden_layers": len(blocks), "embedding_size": head[0], "places": places[1]}
    found["num_attention_heads"] = HEADS.get((modality, width))
    if modality == "text":
        return {**found, "context_length": places[1], "vocab_size": inside["token_embedding.weight"][0]}
    stem = next(shape for key, shape in inside.items() if re.search(r"_stem\.proj(\.1)?\.weight$", key))
    return {**found, **_patches(modality, stem, places[1] - 1)}


def _patches(modality: str, stem: tuple[int, ...], count: int) -> dict[str, Any]:
    """Sizes of what is cut into so many patches."""
    if modality == "imu":
        kernel = stem[1] // CHANNELS["imu"]
        return {"kernel": kernel, "stride": kernel, "steps": count * kernel}
    kernel = stem[-1]
    if modality == "audio":
        return {"kernel": kernel, **SOUND}
    frames = {"frames": stem[2]} if modality == "vision" else {}
    return {**_square(math.isqrt(count) * kernel, kernel), **frames}


def _square(side: int, kernel: int) -> dict[str, int]:
    """A square picture, cut into patches that do not overlap."""
    return {"height": side, "width": side, "kernel": kernel, "stride": kernel}


def _cube(kernel: Any) -> tuple[int, int]:
    """Frames and side of a patch through time."""
    if not (isinstance(kernel, list | tuple) and len(kernel) == 3 and kernel[1] == kernel[2]):
        raise ValueError(f"kernel_size is {kernel!r}, wanted [frames, side, side]")
    return kernel[0], kernel[1]
