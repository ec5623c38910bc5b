"""Shikra: a LLaVA whose words are coordinates as well (arXiv 2306.15195).

Its files are those of a LLaMA with the layer behind the eye beside it, under `model.mm_projector`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelgraft.plugin import FamilyCard, PartCard, WholeCard

MEDIA = ("mm_", "use_mm", "vision_tower", "tune_mm", "freeze_mm", "pretrain_mm", "sep_image_conv_front")  # how keys about pictures begin
LLAMA = frozenset({
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "max_position_embeddings", "max_sequence_length", "rms_norm_eps", "rope_theta", "rope_scaling", "rope_parameters", "hidden_act",
    "attention_bias", "mlp_bias", "pretraining_tp",
})  # fmt: skip


def _language(config: Mapping[str, Any]) -> dict[str, Any]:
    """The LLaMA inside by itself."""
    return {**{key: value for key, value in config.items() if not key.startswith(MEDIA)}, "model_type": "llama"}


def _state(state: Mapping[str, Any]) -> dict[str, Any]:
    """Its tensors, without the layer behind the eye."""
    return {key: tensor for key, tensor in state.items() if ".mm_projector." not in key}


CARD = FamilyCard(
    "shikra",
    "a LLaVA whose words are coordinates as well",
    wholes={
        "shikra": WholeCard(
            parts={"mm_projector": PartCard()},
            language_config=_language,
            language_state=_state,
            obeyed=LLAMA,
            idle=frozenset({
                "mm_hidden_size", "use_mm_proj", "mm_vision_select_layer", "mm_use_im_start_end", "mm_vision_tower", "tune_mm_mlp_adapter",
                "freeze_mm_mlp_adapter", "pretrain_mm_mlp_adapter", "sep_image_conv_front", "vision_tower",
            }),
        ),
    },
    graphs={"shikra": "shikra"},
)  # fmt: skip
