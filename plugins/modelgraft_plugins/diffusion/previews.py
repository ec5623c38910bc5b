"""Small pictures of latents, without a decoder: one pixel for each latent, by what the channels stand for."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

# How much red, green and blue a channel is worth, for latents of the first Stable Diffusion and of its second.
# Source: Keturn, "Decoding latents to RGB without upscaling", discuss.huggingface.co/t/23204, fitted on decoded pictures.
COLOURS = ((0.298, 0.207, 0.208), (0.187, 0.286, 0.173), (-0.158, 0.189, 0.264), (-0.184, -0.271, -0.473))
KNOWN = (4, 0.18215)  # channels and scale of the latents that these are for


def previews(latents: Tensor, *, scale: float) -> list[Image.Image]:
    """A picture of each record, of float[batch channels ... rows columns]; of a film, of its first frame."""
    small = latents.detach().to("cpu", torch.float32)
    while small.dim() > 4:
        small = small[:, :, 0]
    known = (small.shape[1], round(scale, 5)) == KNOWN
    colours = torch.einsum("bchw,cr->bhwr", small, torch.tensor(COLOURS)) if known else torch.stack([_main(one) for one in small])
    return [_picture(one) for one in colours]


def _main(latents: Tensor) -> Tensor:
    """float[channels rows columns] -> float[rows columns 3]: what most of it differs in, along three directions."""
    channels, rows, columns = latents.shape
    flat = latents.reshape(channels, -1).T
    flat = flat - flat.mean(dim=0)
    _, _, directions = torch.linalg.svd(flat.T @ flat)
    chosen = directions[:3]
    signs = torch.where(chosen.sum(dim=1, keepdim=True) < 0, -1.0, 1.0)  # a direction and its opposite say the same
    found = flat @ (chosen * signs).T
    missing = 3 - found.shape[1]
    found = torch.cat([found, found[:, -1:].expand(-1, missing)], dim=1) if missing else found
    return found.reshape(rows, columns, 3)


def _picture(colours: Tensor) -> Image.Image:
    """Two spreads around the middle become 0 to 255: early latents of some schedulers are much larger than late ones."""
    spread = 2 * colours.std().clamp_min(1e-6)
    between = ((colours - colours.mean()) / (2 * spread) + 0.5).clamp(0, 1)
    return Image.fromarray((between * 255).round().to(torch.uint8).numpy())
