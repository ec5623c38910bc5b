"""MultiModal-GPT: an OpenFlamingo that LoRA has tuned, in its language model and its gated layers (arXiv 2305.04790).

Its published file holds the updates in the names of peft, around layers of its own that hold a gated block and a layer of LLaMA. A
config.json beside it may state what its code says of LoRA, under `tuning_config`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from modelgraft.plugin import FamilyCard, LayoutCard, TensorOrigin, WholeCard

KIND = "mmgpt"
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "to_q", "to_kv", "to_out", "ff.1", "ff.3")
RANK = 16
BEFORE = "lang_encoder.base_model.model."
UPDATE = re.compile(
    r"(?:module\.)?lang_encoder\.base_model\.model\.model\.layers\.(\d+)\.(decoder_layer|gated_cross_attn_layer)\.(.+\.lora_[AB])(?:\.default)?\.weight"
)
TWICE = (BEFORE + "gated_cross_attn_layers.", BEFORE + "old_decoder_blocks.")  # the same tensors under another name
Shapes = Mapping[str, tuple[int, ...]]


def _knows(root: Mapping[str, Any], shapes: Shapes) -> bool:
    return bool(shapes) and (
        root.get("model_type") == KIND or (not root and all(UPDATE.fullmatch(key) or key.startswith(TWICE) for key in shapes))
    )


def _config(root: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    """What is stated, and the rank that the tensors have."""
    rank = next((shape[0] for key, shape in shapes.items() if key.endswith(("lora_A.weight", "lora_A.default.weight"))), RANK)
    stated = root.get("tuning_config")
    return {**root, "model_type": KIND, "tuning_config": {**(stated if isinstance(stated, Mapping) else {}), "lora_r": rank}}


def _tensors(_config: Mapping[str, Any], shapes: Shapes) -> dict[str, TensorOrigin]:
    """The updates in the names that peft gives a language model with gated blocks here."""
    found: dict[str, TensorOrigin] = {}
    for key in shapes:
        if (update := UPDATE.fullmatch(key)) is None:
            continue
        gated = update[2] == "gated_cross_attn_layer"
        home = f"gated.blocks.{update[1]}" if gated else f"model.model.layers.{update[1]}"
        found[f"base_model.model.{home}.{update[3]}.weight"] = TensorOrigin(key)
    return found


CARD = FamilyCard(
    KIND,
    "an OpenFlamingo that LoRA has tuned",
    wholes={
        KIND: WholeCard(
            components={
                "adapter/lora": {
                    "rank": ("tuning_config.lora_r", RANK),
                    "alpha": ("tuning_config.lora_alpha", 16),
                    "targets": ("tuning_config.lora_target_modules", TARGETS),
                    "count": ("lora_numbers", None),
                },
            },
        ),
    },
    layouts=(LayoutCard("MultiModal-GPT", _knows, _config, _tensors, idle=TWICE),),
)
