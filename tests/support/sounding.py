"""Tiny generators of sounds and films with random weights, saved by diffusers in its own layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from support.tokenizers import byte_level, clip_bpe

LENGTH = 24  # tokens of a text
WIDTH = 24  # of its vector: the library cuts texts that are avoided at so many tokens, too
UNET = {
    "sample_size": 6, "in_channels": 5, "out_channels": 5, "block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 2,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": (8, 16), "attention_head_dim": 2, "class_embed_type": "simple_projection", "class_embeddings_concat": True,
    "projection_class_embeddings_input_dim": WIDTH,
}  # fmt: skip
VAE = {
    "in_channels": 1, "out_channels": 1, "block_out_channels": (6, 10), "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2, "latent_channels": 5, "norm_num_groups": 2, "scaling_factor": 0.37,
}  # fmt: skip
VOCODER = {
    "model_in_dim": 6, "upsample_initial_channel": 12, "upsample_rates": [5, 2], "upsample_kernel_sizes": [16, 4],
    "resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1, 3]], "sampling_rate": 1000, "normalize_before": False,
}  # fmt: skip
BETAS = {"beta_start": 0.0015, "beta_end": 0.0195, "beta_schedule": "scaled_linear"}
FILM_UNET = {
    "sample_size": 6, "block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 2, "cross_attention_dim": 20,
    "attention_head_dim": 2, "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
    "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
}  # fmt: skip
FILM_VAE = {
    "block_out_channels": (6, 10), "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
    "latent_channels": 4, "norm_num_groups": 2, "scaling_factor": 0.31,
}  # fmt: skip


def stirred(model: Any, *, by: float = 0.1) -> Any:
    """The same model with weights that are drawn wider, so that nothing is near 0: new vocoders are all but silent."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(by * torch.randn(parameter.shape))
    return model.eval()


def audioldm(scheduler: str = "DDIMScheduler", **settings: Any) -> Any:
    """AudioLDMPipeline of diffusers, of a seed."""
    import diffusers
    from transformers import ClapTextConfig, ClapTextModelWithProjection, SpeechT5HifiGan, SpeechT5HifiGanConfig

    torch.manual_seed(5)
    tokenizer = byte_level(begin="<s>", end="</s>", pad="<pad>", prefix=True, suffix=True, extra=())
    tokenizer.padding_side, tokenizer.model_max_length = "right", LENGTH
    text = ClapTextConfig(
        vocab_size=len(tokenizer), hidden_size=20, intermediate_size=37, num_attention_heads=4, num_hidden_layers=2, projection_dim=WIDTH,
        max_position_embeddings=LENGTH + 7, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    made = diffusers.AudioLDMPipeline(
        vae=stirred(diffusers.AutoencoderKL(**VAE)),
        text_encoder=stirred(ClapTextModelWithProjection(text)),
        tokenizer=tokenizer,
        unet=stirred(diffusers.UNet2DConditionModel(**UNET)),
        scheduler=getattr(diffusers, scheduler)(**BETAS, **settings),
        vocoder=stirred(SpeechT5HifiGan(SpeechT5HifiGanConfig(**VOCODER)), by=0.2),
    )
    made.set_progress_bar_config(disable=True)
    return made


def film(scheduler: str = "DDIMScheduler", **settings: Any) -> Any:
    """TextToVideoSDPipeline of diffusers, of a seed."""
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(7)
    tokenizer = clip_bpe()
    tokenizer.model_max_length = 77
    text = CLIPTextConfig(
        hidden_size=20, intermediate_size=37, num_attention_heads=4, num_hidden_layers=2, vocab_size=len(tokenizer),
        eos_token_id=tokenizer.eos_token_id, bos_token_id=tokenizer.bos_token_id,
    )  # fmt: skip
    made = diffusers.TextToVideoSDPipeline(
        vae=stirred(diffusers.AutoencoderKL(**FILM_VAE), by=0.05),
        text_encoder=stirred(CLIPTextModel(text), by=0.05),
        tokenizer=tokenizer,
        unet=stirred(diffusers.UNet3DConditionModel(**FILM_UNET), by=0.05),
        scheduler=getattr(diffusers, scheduler)(**BETAS, **settings),
    )
    made.set_progress_bar_config(disable=True)
    return made


def save(folder: Path, made: Any) -> Any:
    """Save one in a folder; gives the pipeline."""
    made.save_pretrained(folder)
    return made


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    """Latents to begin with."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
