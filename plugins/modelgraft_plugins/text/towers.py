"""What is known of text towers without building them: published defaults and the exact number of parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelgraft_plugins.stated import tower_table


@dataclass(frozen=True, slots=True)
class Family:
    """A way to build a text tower: the class in transformers, and what its config means where it is silent."""

    architecture: str
    defaults: Mapping[str, Any]


def _sizes(width: int, inner: int, heads: int, vocabulary: int, longest: int) -> dict[str, Any]:
    return {
        "hidden_size": width, "intermediate_size": inner, "num_hidden_layers": 12, "num_attention_heads": heads, "vocab_size": vocabulary,
        "max_position_embeddings": longest,
    }  # fmt: skip


FAMILIES: Mapping[str, Family] = {
    "clip": Family(
        "CLIPTextModel",
        {**_sizes(512, 2048, 8, 49408, 77), "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "eos_token_id": 49407, "pad_token_id": 1},
    ),
    "siglip": Family(
        "SiglipTextModel",
        {
            **_sizes(768, 3072, 12, 32000, 64),
            "hidden_act": "gelu_pytorch_tanh",
            "layer_norm_eps": 1e-6,
            "eos_token_id": 49407,
            "pad_token_id": 1,
        },
    ),
    "bert": Family(
        "BertModel",
        {**_sizes(768, 3072, 12, 30522, 512), "hidden_act": "gelu", "layer_norm_eps": 1e-12, "type_vocab_size": 2, "pad_token_id": 0},
    ),
}
# model_type of a model -> that of its text tower, for old configs that leave it out
INSIDE: Mapping[str, str] = {"clip": "clip_text_model", "siglip": "siglip_text_model"}
MODEL_TYPES: Mapping[str, str] = {"clip_text_model": "clip", "siglip_text_model": "siglip", "bert": "bert"}  # model_type -> family

# what a published config states -> what becomes of it; a test compares it with the config classes of transformers
TABLE = tower_table(
    obeyed={*(key for family in FAMILIES.values() for key in family.defaults), "projection_size"},
    idle={
        "projection_dim", "directionality", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head",
        "pooler_type",
    },
)  # fmt: skip


def count(family: str, *, width: int, inner: int, layers: int, vocabulary: int, longest: int, types: int, pooled: int) -> int:
    """Count the parameters of a tower.

    width, inner  of the residual stream and of the feed-forward layers;  longest  number of positions
    types         BERT: kinds of segments;  pooled  SigLIP: width of what its head gives
    """
    norm, attention = 2 * width, 4 * (width * width + width)
    block = attention + 2 * width * inner + inner + width + 2 * norm
    tables = (vocabulary + longest) * width + norm  # every family has one norm outside its blocks
    total = tables + layers * block
    match family:
        case "siglip":
            return total + width * pooled + pooled
        case "bert":
            return total + types * width + width * width + width
    return total
