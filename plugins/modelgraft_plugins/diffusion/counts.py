"""Parameters of models that loops ask, counted from their configs alone. Light.

What a formula here does not know is None: it is counted when the model is built, and remembered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

DOWN, UP = ("DownBlock2D", "CrossAttnDownBlock2D"), ("UpBlock2D", "CrossAttnUpBlock2D")
USUAL: Mapping[str, tuple[Any, ...]] = {  # keys that add parameters elsewhere, with the values at which they do not
    "addition_embed_type": ("text_time",), "class_embed_type": (), "conv_in_kernel": (3,), "conv_out_kernel": (3,),
    "cross_attention_norm": (), "dual_cross_attention": (False,), "encoder_hid_dim": (), "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "num_class_embeds": (), "only_cross_attention": (False,), "resnet_out_scale_factor": (1.0,), "resnet_skip_time_act": (False,),
    "resnet_time_scale_shift": ("default",), "reverse_transformer_layers_per_block": (), "time_cond_proj_dim": (),
    "time_embedding_dim": (), "time_embedding_type": ("positional",), "mid_block_only_cross_attention": (),
    "attention_type": ("default",), "num_attention_heads": (), "downsample_padding": (1,), "center_input_sample": (False,),
}  # fmt: skip


def linear(width: int, out: int) -> int:
    """A layer with a bias."""
    return width * out + out


def conv(width: int, out: int) -> int:
    """A convolution of 3 x 3 with a bias."""
    return 9 * width * out + out


def unet(config: Mapping[str, Any]) -> int | None:
    """Count a UNet2DConditionModel of the blocks of Stable Diffusion; None for one of other blocks."""
    sizes = [int(one) for one in config.get("block_out_channels") or ()]
    down, up = list(config.get("down_block_types") or ()), list(config.get("up_block_types") or ())
    strange = any(config.get(key) is not None and config[key] not in fine for key, fine in USUAL.items())
    if not sizes or strange or not set(down) <= set(DOWN) or not set(up) <= set(UP) or len(down) != len(sizes) or len(up) != len(sizes):
        return None
    count = len(sizes)
    rounds, depths = _each(config.get("layers_per_block", 2), count), _each(config.get("transformer_layers_per_block", 1), count)
    cross, first, time = _each(config.get("cross_attention_dim", 1280), count), sizes[0], 4 * sizes[0]
    added = int(config.get("projection_class_embeddings_input_dim") or 0) * (config.get("addition_embed_type") == "text_time")
    total = conv(int(config.get("in_channels", 4)), first) + linear(first, time) + linear(time, time)
    total += (linear(added, time) + linear(time, time)) * bool(added)
    before = first
    for index, size in enumerate(sizes):
        for turn in range(rounds[index]):
            total += pair(before if turn == 0 else size, size, time)
            total += looking(size, depths[index], cross[index]) * (down[index] == DOWN[1])
        total += conv(size, size) * (index < count - 1)
        before = size
    total += 2 * pair(before, before, time) + looking(before, depths[-1], cross[-1])
    for index, size in enumerate(sizes[::-1]):
        skipped = sizes[::-1][min(index + 1, count - 1)]
        for turn in range(rounds[-1 - index] + 1):
            beside = skipped if turn == rounds[-1 - index] else size
            total += pair((before if turn == 0 else size) + beside, size, time)
            total += looking(size, depths[-1 - index], cross[-1 - index]) * (up[index] == UP[1])
        total += conv(size, size) * (index < count - 1)
        before = size
    return total + 2 * first + conv(first, int(config.get("out_channels", 4)))


def pair(width: int, out: int, time: int) -> int:
    """Two convolutions behind a norm each, the time between them, and the way past them where the width changes."""
    return 2 * width + conv(width, out) + linear(time, out) + 2 * out + conv(out, out) + linear(width, out) * (width != out)


def looking(width: int, depth: int, cross: int) -> int:
    """Blocks of attention to the picture itself and to the text, between two layers of their own."""
    attention = 4 * width * width + width + 2 * width * width + 2 * cross * width + width
    each = 6 * width + attention + linear(width, 8 * width) + linear(4 * width, width)
    return 2 * width + 2 * linear(width, width) + depth * each


def sd3(config: Mapping[str, Any]) -> int:
    """Count an SD3Transformer2DModel."""
    heads, each, layers = (int(config.get(key, default)) for key, default in WORDS.items())
    width, patch = heads * each, int(config.get("patch_size", 2)) ** 2
    pooled, joint = int(config.get("pooled_projection_dim", 2048)), int(config.get("joint_attention_dim", 4096))
    channels = int(config.get("in_channels", 16))
    out = int(config.get("out_channels") or channels)
    total = channels * width * patch + width + linear(256, width) + linear(pooled, width) + 2 * linear(width, width)
    total += linear(joint, int(config.get("caption_projection_dim", 1152))) + linear(width, 2 * width) + linear(width, patch * out)
    double, normed = set(config.get("dual_attention_layers") or ()), config.get("qk_norm") is not None
    feed = linear(width, 4 * width) + linear(4 * width, width)
    for index in range(layers):
        is_last = index == layers - 1
        total += linear(width, 9 * width if index in double else 6 * width) + linear(width, 2 * width if is_last else 6 * width)
        total += (7 + (not is_last)) * linear(width, width) + feed * (1 + (not is_last)) + 4 * each * normed
        total += (4 * linear(width, width) + 2 * each * normed) * (index in double)
    return total


WORDS = {"num_attention_heads": 18, "attention_head_dim": 64, "num_layers": 18}  # with what diffusers takes where they are left out


def _each(value: int | Sequence[int], count: int) -> list[int]:
    return [int(one) for one in value] if isinstance(value, list | tuple) else [int(value)] * count  # type: ignore[arg-type]
