"""UNets of diffusers as the part of a loop."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from modelgraft_plugins.diffusion.building import Answering, Asking


class Denoiser(Asking):
    """The UNet of latent diffusion, as one part."""

    def __init__(self, config: Any) -> None:
        super().__init__(config.part, Noise("UNet2DConditionModel", config.unet))


class Noise(Answering):
    """The noise that a UNet sees in latents."""

    def forward(self, sample: Tensor, time: Tensor, states: Tensor) -> Tensor:
        """float[batch channels rows columns], float[batch], float[batch tokens d] -> float[batch channels rows columns]."""
        noise: Tensor = self.model(sample, time, states, return_dict=False)[0]
        return noise
