"""A tiny Stable Diffusion with random weights, saved by diffusers in its own layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from support.tokenizers import clip_bpe

UNET = {
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "sample_size": (8, 12),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": 20,
    "attention_head_dim": 2,
    "norm_num_groups": 2,
}
VAE = {
    "block_out_channels": (6, 10),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "latent_channels": 4,
    "norm_num_groups": 2,
    "scaling_factor": 0.31,
}
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def pipeline(scheduler: str = "DDIMScheduler", *, unet: dict[str, Any] | None = None, **settings: Any) -> Any:
    """StableDiffusionPipeline of diffusers, of a seed."""
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(5)
    tokenizer = clip_bpe()
    tokenizer.model_max_length = 77
    text = CLIPTextConfig(
        hidden_size=20, intermediate_size=37, num_attention_heads=4, num_hidden_layers=2, vocab_size=len(tokenizer),
        eos_token_id=tokenizer.eos_token_id, bos_token_id=tokenizer.bos_token_id,
    )  # fmt: skip
    made = diffusers.StableDiffusionPipeline(
        vae=diffusers.AutoencoderKL(**VAE),
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=diffusers.UNet2DConditionModel(**UNET, **(unet or {})),
        scheduler=getattr(diffusers, scheduler)(**BETAS, **settings),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.set_progress_bar_config(disable=True)
    return made


def save(folder: Path, scheduler: str = "DDIMScheduler", **settings: Any) -> Any:
    """Save one in a folder; gives the pipeline."""
    made = pipeline(scheduler, **settings)
    made.save_pretrained(folder)
    return made


def noise(batch: int, *, seed: int = 1) -> torch.Tensor:
    """Latents to begin with."""
    return torch.randn(batch, 4, 8, 12, generator=torch.Generator().manual_seed(seed))
