"""MultiModal-GPT: an OpenFlamingo that LoRA has tuned, in its language model and its gated layers (arXiv 2305.04790).

Its published file holds the updates. What its config states of LoRA stands under `tuning_config`, as in its code.
"""

from __future__ import annotations

from modelgraft.plugin import FamilyCard, WholeCard

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "to_q", "to_kv", "to_out", "ff.1", "ff.3")
CARD = FamilyCard(
    "mmgpt",
    "an OpenFlamingo that LoRA has tuned",
    wholes={
        "mmgpt": WholeCard(
            components={
                "adapter/lora": {
                    "rank": ("tuning_config.r", 16),
                    "alpha": ("tuning_config.lora_alpha", 16),
                    "targets": ("tuning_config.lora_target_modules", TARGETS),
                    "count": ("lora_numbers", None),
                },
            },
        ),
    },
)
