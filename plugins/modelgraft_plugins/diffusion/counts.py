"""Parameters of layers and of a transformer, counted from their sizes alone. Light."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def linear(width: int, out: int) -> int:
    """A layer with a bias."""
    return width * out + out


def conv(width: int, out: int) -> int:
    """A convolution of 3 x 3 with a bias."""
    return 9 * width * out + out


def residual(width: int, out: int) -> int:
    """Parameters of two convolutions behind a norm each, and of the way past them where the width changes."""
    return 2 * width + conv(width, out) + 2 * out + conv(out, out) + linear(width, out) * (width != out)


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
