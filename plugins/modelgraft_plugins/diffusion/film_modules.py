"""The models of films: the UNet that sees all frames at once, and the decoder that sees them one by one."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from modelgraft_plugins.diffusion.building import Answering, Asking
from modelgraft_plugins.diffusion.vae import LatentDecoder


class Denoiser(Asking):
    """The UNet of a film, as one part."""

    def __init__(self, config: Any) -> None:
        super().__init__(config.part, Noise("UNet3DConditionModel", config.unet))


class Noise(Answering):
    """The noise that a UNet sees in latents of a film."""

    def forward(self, sample: Tensor, time: Tensor, states: Tensor) -> Tensor:
        """float[batch channels frames rows columns], float[batch], float[batch tokens d] -> float[batch channels frames rows columns]."""
        noise: Tensor = self.model(sample, time, states, return_dict=False)[0]
        return noise


class FilmDecoder(LatentDecoder):
    """The decoder of a VAE over the frames of films."""

    def forward(self, latents: Tensor) -> Tensor:
        """float[batch channels frames rows columns] -> float[batch 3 frames height width], from -1 to 1 and a little beyond."""
        batch, channels, frames, rows, columns = latents.shape
        flat = latents.transpose(1, 2).reshape(batch * frames, channels, rows, columns)
        pixels = super().forward(flat)
        return pixels.reshape(batch, frames, *pixels.shape[1:]).transpose(1, 2)
