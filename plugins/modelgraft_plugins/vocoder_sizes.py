"""Parameters of vocoders by their configs, for all plugins that hold one. Light."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def hifigan_size(config: Mapping[str, Any]) -> int:
    """Those of a HiFi-GAN, by a config of SpeechT5HifiGan of transformers; what it leaves out is as there.

    A convolution before and one behind, a transposed one for each rate, which halves the channels, and two for each dilation of the
    residual blocks behind it.
    """
    mels, wide = int(config.get("model_in_dim", 80)), int(config.get("upsample_initial_channel", 512))
    sizes, dilations = config.get("resblock_kernel_sizes", (3, 7, 11)), config.get("resblock_dilation_sizes", ((1, 3, 5),) * 3)
    found = 7 * mels * wide + wide
    for kernel in config.get("upsample_kernel_sizes", (8, 8, 8, 8)):
        half = wide // 2
        found += kernel * wide * half + half
        found += sum(2 * len(each) * (size * half * half + half) for size, each in zip(sizes, dilations, strict=True))
        wide = half
    return found + 7 * wide + 1
