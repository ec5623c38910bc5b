"""The language model inside IDEFICS: a LLaMA whose embeddings and head are cut in two, the vocabulary and what was added to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modelgraft_plugins.stated import tower_table

if TYPE_CHECKING:
    from torch import Tensor

MODEL_TYPE = "idefics"
# Fields that mean the same in the config of a LLaMA; its other fields are about media.
SHARED = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act", "rms_norm_eps", "max_position_embeddings",
    "rope_parameters", "rope_theta", "rope_scaling", "tie_word_embeddings", "pad_token_id", "bos_token_id", "eos_token_id",
)  # fmt: skip
# What it means where it is silent and a LLaMA would not mean the same: transformers 5.23, IdeficsConfig; a test compares them.
SILENT: Mapping[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "vocab_size": 32000}
# What its config states -> what becomes of it here, in the gated blocks, and in the resampler and tower, which are parts of their own.
TABLE = tower_table(
    obeyed={*SHARED, "vocab_size", "additional_vocab_size", "cross_layer_interval", "qk_layer_norms", "alpha_type", "vision_config",
            "perceiver_config"},
    idle={
        "use_resampler", "alpha_initializer", "alphas_initializer_range", "freeze_lm_head", "freeze_text_layers",
        "freeze_text_module_exceptions", "freeze_vision_layers", "freeze_vision_module_exceptions", "image_size",
    },
)  # fmt: skip
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


def language_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the LLaMA among those of an IDEFICS: without those about media, embeddings and head in one piece each."""
    import torch

    found = {name: tensor for name, tensor in state.items() if not name.startswith(MEDIA)}
    for name, added in HALVES.items():
        if name in found and added in found:
            found[name] = torch.cat([found[name], found.pop(added)])
    return found
