"""IDEFICS: a frozen LLaMA looks at pictures through gated layers; an open Flamingo (huggingface.co/blog/idefics).

The language model is a LLaMA whose embeddings and head are cut in two, the vocabulary and what was added to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from modelgraft.plugin import FamilyCard, PartCard, PictureCard, WholeCard
from modelgraft_plugins.families import clip
from modelgraft_plugins.families._shared import BICUBIC, CLIP_MEAN, CLIP_STD, eye_sizes, picture_defaults

# Fields that mean the same in the config of a LLaMA; its other fields are about media.
SHARED = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act", "rms_norm_eps", "max_position_embeddings",
    "rope_parameters", "rope_theta", "rope_scaling", "tie_word_embeddings", "pad_token_id", "bos_token_id", "eos_token_id",
)  # fmt: skip
# What it means where it is silent and a LLaMA would not mean the same: transformers 5.23, IdeficsConfig; a test compares them.
SILENT: Mapping[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "vocab_size": 32000}
MEDIA = ("model.vision_model.", "model.perceiver_resampler.", "model.gated_cross_attn_layers.")
HALVES = {
    "model.embed_tokens.weight": "model.embed_tokens.additional_embedding.weight",
    "lm_head.weight": "lm_head.additional_fc.weight",
}


def language_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of the LLaMA in a config of IDEFICS."""
    known = {**SILENT, **config}
    found = {name: known[name] for name in SHARED if name in known}
    return {**found, "model_type": "llama", "vocab_size": known["vocab_size"] + (known.get("additional_vocab_size") or 0)}


def language_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors of the LLaMA among those of an IDEFICS: without those about media, embeddings and head in one piece each."""
    import torch

    found = {name: tensor for name, tensor in state.items() if not name.startswith(MEDIA)}
    for name, added in HALVES.items():
        if name in found and added in found:
            found[name] = torch.cat([found[name], found.pop(added)])
    return found


EYE = replace(
    clip.EYE,
    defaults={**eye_sizes(768, 5120, 32, 16, 14), "hidden_act": "gelu", "layer_norm_eps": 1e-5},
    names={"hidden_size": "embed_dim"},
)
# our field of the gated blocks -> where a config has it, and what that means where it is silent
_GATED: Mapping[str, Any] = {
    "hidden_size": ("hidden_size", 4096), "num_hidden_layers": ("num_hidden_layers", 32), "num_heads": ("num_attention_heads", 32),
    "intermediate_size": ("intermediate_size", 11008), "every": ("cross_layer_interval", 1), "qk_norms": ("qk_layer_norms", False),
    "hidden_act": ("hidden_act", "silu"), "rms_norm_eps": ("rms_norm_eps", 1e-6), "gates": ("alpha_type", "float"),
    "media_size": ("vision_config.embed_dim", 768),
}  # fmt: skip
_RESAMPLER: Mapping[str, Any] = {  # the same of the resampler
    "depth": ("perceiver_config.resampler_depth", 6), "num_heads": ("perceiver_config.resampler_n_heads", 16),
    "head_dim": ("perceiver_config.resampler_head_dim", 96), "num_latents": ("perceiver_config.resampler_n_latents", 64),
    "hidden_size": ("vision_config.embed_dim", 768), "qk_norms": ("perceiver_config.qk_layer_norms_perceiver", False),
}  # fmt: skip

CARD = FamilyCard(
    "idefics",
    "a frozen LLaMA looks at pictures through gated layers",
    wholes={
        "idefics": WholeCard(
            parts={
                "vision_model": PartCard("vision_config", "idefics_vision"),
                "perceiver_resampler": PartCard("perceiver_config"),
            },
            pictures="Idefics",
            begin_token="<s>",  # noqa: S106 a token of the vocabulary
            language_config=language_config,
            language_state=language_state,
            obeyed=frozenset({
                *SHARED, "vocab_size", "additional_vocab_size", "cross_layer_interval", "qk_layer_norms", "alpha_type", "vision_config",
                "perceiver_config",
            }),
            idle=frozenset({
                "use_resampler", "alpha_initializer", "alphas_initializer_range", "freeze_lm_head", "freeze_text_layers",
                "freeze_text_module_exceptions", "freeze_vision_layers", "freeze_vision_module_exceptions", "image_size",
            }),
            components={
                "adapter/gated_cross_attention": {"family": "idefics", "fields": _GATED},
                "resampler/perceiver": {"family": "idefics", "fields": _RESAMPLER},
            },
        ),
    },
    towers={"idefics_vision": EYE},
    pictures={"Idefics": PictureCard(picture_defaults(224, resample=BICUBIC, mean=CLIP_MEAN, std=CLIP_STD), own={"image_size": "size"})},
    graphs={"idefics": "idefics"},
)  # fmt: skip
