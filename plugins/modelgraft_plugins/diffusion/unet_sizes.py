"""Parameters of UNets of diffusers by their configs, without building them. Light.

Source: UNet2DConditionModel and UNet3DConditionModel of diffusers 0.42; `tests/plugins/test_unet_sizes.py` holds them against the models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelgraft_plugins.diffusion.counts import conv, linear, residual

DOWN, UP, MIDDLE = ("DownBlock", "CrossAttnDownBlock"), ("UpBlock", "CrossAttnUpBlock"), "UNetMidBlock"
SERVED = {f"{name}{size}" for name in (*DOWN, *UP) for size in ("2D", "3D")} | {None, "UNetMidBlock2DCrossAttn"}
# Keys that change what is counted, at the values that the formulas are for.
STILL: Mapping[str, tuple[Any, ...]] = {
    "addition_embed_type": (None, "text_time"), "class_embed_type": (None, "simple_projection"), "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "dual_cross_attention": (False,), "encoder_hid_dim": (None,), "encoder_hid_dim_type": (None,), "num_class_embeds": (None,),
    "only_cross_attention": (False,), "resnet_skip_time_act": (False,), "resnet_time_scale_shift": ("default",),
    "time_cond_proj_dim": (None,), "time_embedding_act_fn": (None,), "time_embedding_dim": (None,), "time_embedding_type": ("positional",),
    "timestep_post_act": (None,), "reverse_transformer_layers_per_block": (None,), "mid_block_only_cross_attention": (None,),
    "addition_embed_type_num_heads": (64, None), "attention_type": ("default",), "resnet_out_scale_factor": (1.0,),
    "cross_attention_norm": (None,), "center_input_sample": (False,),
}  # fmt: skip


def parameters_of(unet: Mapping[str, Any]) -> int | None:
    """How many a UNet has, one for pictures and sounds or one for films; None for a kind that the formulas do not know."""
    blocks = (*unet.get("down_block_types", ()), *unet.get("up_block_types", ()), unet.get("mid_block_type"))
    known = all(unet[key] in fine or unet[key] is None for key, fine in STILL.items() if key in unet)
    told = unet.get("addition_embed_type") or unet.get("class_embed_type")  # by a vector, whose width has to be stated
    known = known and not (told and not unet.get("projection_class_embeddings_input_dim"))
    if not known or not unet.get("block_out_channels") or not set(blocks) <= SERVED:
        return None
    return _counted(unet, in_time=unet.get("_class_name") == "UNet3DConditionModel")


def _counted(unet: Mapping[str, Any], *, in_time: bool) -> int:
    """What enters, what goes down, the middle, what comes up, and what leaves. Blocks of films have a layer in time behind each."""
    sizes: list[int] = list(unet["block_out_channels"])
    first, time = sizes[0], 4 * sizes[0]
    added = unet.get("class_embed_type") == "simple_projection"
    known = time * (1 + (added and bool(unet.get("class_embeddings_concat"))))  # width of what each residual block is told
    found = conv(int(unet.get("in_channels", 4)), first) + first * time + time + time * time + time
    found += (int(unet.get("projection_class_embeddings_input_dim") or 0) * time + time) * added
    if unet.get("addition_embed_type") == "text_time":
        found += linear(int(unet.get("projection_class_embeddings_input_dim") or 0), time) + linear(time, time)
    if in_time:
        found += _looking(first, 8 * int(unet.get("attention_head_dim", 64)), None)  # 8 heads, before the first block
    layers, reads = int(unet.get("layers_per_block", 2)), _reads(unet, len(sizes))
    depth = unet.get("transformer_layers_per_block") or 1
    depths: list[int] = list(depth) if isinstance(depth, list | tuple) else [depth] * len(sizes)

    def block(before: int, size: int, place: int, *, has_attention: bool) -> int:
        each = residual(before, size) + known * size + size + _in_time(size) * in_time
        return each + (_looking(size, size, reads[place], depths[place]) + _looking(size, size, None) * in_time) * has_attention

    before = first
    for index, (size, kind) in enumerate(zip(sizes, unet["down_block_types"], strict=True)):
        seen = kind.startswith("CrossAttn")
        found += block(before, size, index, has_attention=seen) + (layers - 1) * block(size, size, index, has_attention=seen)
        found += conv(size, size) * (index < len(sizes) - 1)
        before = size
    top = sizes[-1]
    found += block(top, top, -1, has_attention=True) + block(top, top, -1, has_attention=False)
    kept = [first] + [size for index, size in enumerate(sizes) for size in [size] * (layers + (index < len(sizes) - 1))]
    before = top
    for index, (size, kind) in enumerate(zip(sizes[::-1], unet["up_block_types"], strict=True)):
        for _ in range(layers + 1):
            found += block(before + kept.pop(), size, -1 - index, has_attention=kind.startswith("CrossAttn"))
            before = size
        found += conv(size, size) * (index < len(sizes) - 1)
    return found + 2 * first + conv(first, int(unet.get("out_channels", 4)))


def _reads(unet: Mapping[str, Any], blocks: int) -> list[int]:
    """Width of what each block looks at."""
    width = unet.get("cross_attention_dim") or (1024 if unet.get("_class_name") == "UNet3DConditionModel" else 1280)
    return list(width) if isinstance(width, list | tuple) else [int(width)] * blocks


def _looking(size: int, inner: int, width: int | None, depth: int = 1) -> int:
    """A norm, a way in and out, and so often attention to itself, to what has the width (None: to itself again), and a gated layer."""
    read = inner if width is None else width
    attention = 2 * inner * inner + 2 * read * inner
    itself = 4 * inner * inner + inner
    each = 6 * inner + itself + attention + inner + 12 * inner * inner + 9 * inner
    return 2 * size + linear(size, inner) + linear(inner, size) + depth * each


def _in_time(size: int) -> int:
    """Four convolutions over three frames, behind a norm each."""
    return 4 * (2 * size + 3 * size * size + size)
