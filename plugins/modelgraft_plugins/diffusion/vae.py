"""The two halves of a VAE of diffusers: each holds its own alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from modelgraft.plugin import LoadContext, Weights
from modelgraft_plugins.diffusion.building import built

OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # what older files call the parts of an attention


class Half(nn.Module):
    """What both have: the names in files, and the space of latents."""

    held: tuple[str, ...] = ()

    def __init__(self, config: Any) -> None:
        super().__init__()
        vae = built("AutoencoderKL", config.vae)
        self.scale, self.shift, self.is_wide = config.scale, config.shift, bool(config.vae.get("force_upcast"))
        for name in self.held:
            setattr(self, name, getattr(vae, name))
        self._renamed = [name for name, module in self.named_modules() if getattr(module, "_from_deprecated_attn_block", False)]

    def from_checkpoint(self, weights: Weights) -> dict[str, Tensor]:
        """The tensors of this half alone."""
        old = {f"{path}.{before}.": f"{path}.{after}." for path in self._renamed for before, after in OLD.items()}
        found = {}
        for key in weights.keys():  # noqa: SIM118 a method of Weights
            if key.startswith(tuple(f"{name}." for name in self.held)):
                head = next((before for before in old if key.startswith(before)), None)
                found[old[head] + key.removeprefix(head) if head else key] = weights.tensor(key)
        return found

    def prepare(self, context: LoadContext) -> None:  # noqa: ARG002 as the protocol has it
        """Compute in float32 where the config says that float16 overflows within, as in Stable Diffusion XL."""
        if self.is_wide and next(self.parameters()).dtype == torch.float16:
            self.to(torch.float32)

    def taken(self, given: Tensor) -> Tensor:
        """In the dtype of the weights."""
        return given.to(next(self.parameters()).dtype)


class LatentDecoder(Half):
    """The decoder of a VAE."""

    held: tuple[str, ...] = ("decoder", "post_quant_conv")
    decoder: nn.Module
    post_quant_conv: nn.Module | None

    def forward(self, latents: Tensor) -> Tensor:
        """float[batch channels rows columns] -> float[batch 3 height width], from -1 to 1 and a little beyond."""
        inner = self.taken(latents) / self.scale + self.shift
        if self.post_quant_conv is not None:
            inner = self.post_quant_conv(inner)
        pixels: Tensor = self.decoder(inner)
        return pixels


class LatentEncoder(Half):
    """The encoder of a VAE, which gives for each latent where it may lie: a middle, and the logarithm of how far around."""

    held = ("encoder", "quant_conv")
    encoder: nn.Module
    quant_conv: nn.Module | None

    def forward(self, pixels: Tensor, noise: Tensor | None = None) -> Tensor:
        """float[batch 3 height width], float[batch channels rows columns] or None -> float[batch channels rows columns].

        Source: diffusers, DiagonalGaussianDistribution, whose logarithm of the variance is kept between -30 and 20.
        """
        found: Tensor = self.encoder(self.taken(pixels))
        if self.quant_conv is not None:
            found = self.quant_conv(found)
        middle, spread = found.chunk(2, dim=1)
        inner = middle if noise is None else middle + (spread.clamp(-30.0, 20.0) / 2).exp() * noise
        latents: Tensor = (inner - self.shift) * self.scale
        return latents
