"""UNets of diffusers as the part of a loop."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from modelgraft_plugins.diffusion.building import Answering, Asking


class Denoiser(Asking):
    """The UNet of latent diffusion, as one part."""

    def __init__(self, config: Any) -> None:
        name = "UNet2DConditionModel"
        super().__init__(config.part, Added(name, config.unet, config.sizes) if config.is_added else Noise(name, config.unet))


class Noise(Answering):
    """The noise that a UNet sees in latents."""

    def forward(self, sample: Tensor, time: Tensor, states: Tensor) -> Tensor:
        """float[batch channels rows columns], float[batch], float[batch tokens d] -> float[batch channels rows columns]."""
        noise: Tensor = self.model(sample, time, states, return_dict=False)[0]
        return noise


class Added(Answering):
    """The same of a UNet that adds to the time a vector of the text, and sizes. Source: SDXL, arXiv 2307.01952."""

    def __init__(self, name: str, config: Any, sizes: tuple[int, ...]) -> None:
        super().__init__(name, config)
        self.sizes = sizes

    def forward(self, sample: Tensor, time: Tensor, states: Tensor, pooled: Tensor) -> Tensor:
        """As Noise, and float[batch pooled_size]."""
        sizes = torch.tensor([self.sizes], dtype=states.dtype, device=states.device).expand(sample.shape[0], -1)
        added = {"text_embeds": pooled, "time_ids": sizes}
        noise: Tensor = self.model(sample, time, states, added_cond_kwargs=added, return_dict=False)[0]
        return noise
