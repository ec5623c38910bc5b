"""Tiny pipelines with random weights of each kind that paints, saved by diffusers in its own layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from support import painting
from support.tokenizers import byte_level, clip_bpe

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def clip_text(*, width: int, projected: int = 0, layers: int = 3) -> Any:
    """A text tower of CLIP with a projection or without."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    tokenizer = clip_bpe()
    config = CLIPTextConfig(
        hidden_size=width, intermediate_size=37, num_attention_heads=4, num_hidden_layers=layers, vocab_size=len(tokenizer),
        eos_token_id=tokenizer.eos_token_id, bos_token_id=tokenizer.bos_token_id, projection_dim=projected or 512,
    )  # fmt: skip
    return CLIPTextModelWithProjection(config) if projected else CLIPTextModel(config)


def tokenizer() -> Any:
    """One of CLIP's, for as many tokens as its towers have places."""
    made = clip_bpe()
    made.model_max_length = 77
    return made


def v_prediction() -> Any:
    """A Stable Diffusion 2: what the UNet sees is a velocity."""
    return painting.pipeline(prediction_type="v_prediction", clip_sample=False, steps_offset=1)


def sdxl(scheduler: str = "EulerDiscreteScheduler") -> Any:
    """A Stable Diffusion XL: two text encoders, a vector of the text and sizes."""
    import diffusers

    torch.manual_seed(6)
    unet = {
        **painting.UNET, "cross_attention_dim": 28, "addition_embed_type": "text_time", "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": 6 * 4 + 10, "transformer_layers_per_block": (1, 2), "use_linear_projection": True,
    }  # fmt: skip
    return diffusers.StableDiffusionXLPipeline(
        vae=diffusers.AutoencoderKL(**painting.VAE), text_encoder=clip_text(width=16), text_encoder_2=clip_text(width=12, projected=10),
        tokenizer=tokenizer(), tokenizer_2=tokenizer(), unet=diffusers.UNet2DConditionModel(**unet),
        scheduler=getattr(diffusers, scheduler)(**BETAS), add_watermarker=False,
    )  # fmt: skip


TRANSFORMER: dict[str, Any] = {
    "sample_size": 12, "patch_size": 2, "in_channels": 4, "num_layers": 2, "attention_head_dim": 6, "num_attention_heads": 2,
    "joint_attention_dim": 40, "caption_projection_dim": 12, "pooled_projection_dim": 18, "out_channels": 4, "pos_embed_max_size": 12,
}  # fmt: skip


def sd3(*, with_t5: bool = True, more: dict[str, Any] | None = None, **scheduler: Any) -> Any:
    """A Stable Diffusion 3: a transformer of flow matching behind two CLIPs and a T5."""
    import diffusers
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(7)
    words = byte_level(begin=None, end="</s>", pad="<pad>", suffix=True)
    config = T5Config(
        vocab_size=len(words), d_model=40, d_kv=5, d_ff=33, num_layers=2, num_heads=3, feed_forward_proj="gated-gelu",
        relative_attention_num_buckets=8, is_encoder_decoder=False, tie_word_embeddings=False,
    )  # fmt: skip
    transformer = diffusers.SD3Transformer2DModel(**TRANSFORMER, **(more or {}))
    vae = {**painting.VAE, "shift_factor": 0.07, "use_quant_conv": False, "use_post_quant_conv": False}
    return diffusers.StableDiffusion3Pipeline(
        vae=diffusers.AutoencoderKL(**vae), text_encoder=clip_text(width=16, projected=8), text_encoder_2=clip_text(width=12, projected=10),
        text_encoder_3=T5EncoderModel(config) if with_t5 else None, tokenizer=tokenizer(), tokenizer_2=tokenizer(),
        tokenizer_3=words if with_t5 else None, transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**{"shift": 3.0, **scheduler}),
    )  # fmt: skip


def saved(pipeline: Any, folder: Path) -> Any:
    """Save one; gives it as the library reads it again, which ties what a new T5 holds twice."""
    pipeline.save_pretrained(folder)
    found = type(pipeline).from_pretrained(folder, **{name: None for name, part in pipeline.components.items() if part is None})
    found.set_progress_bar_config(disable=True)
    return found
