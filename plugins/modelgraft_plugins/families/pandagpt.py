"""PandaGPT: what ImageBind makes of a medium is one token of a Vicuna (arXiv 2305.16355).

Its published file holds what was trained: the layer between them, and the updates of LoRA in the names of peft.
"""

from __future__ import annotations

from modelgraft.plugin import FamilyCard, PartCard, WholeCard
from modelgraft_plugins.families.nextgpt import ATTENTION

CARD = FamilyCard(
    "pandagpt",
    "what ImageBind makes of a medium is one token of a Vicuna",
    wholes={
        "pandagpt": WholeCard(
            parts={"llama_proj": PartCard(), "llama_model": PartCard()},
            components={
                "adapter/lora": {
                    "rank": ("lora_r", 32),
                    "alpha": ("lora_alpha", 32),
                    "targets": ("lora_targets", ATTENTION),
                    "host_width": ("llm_width", None),
                    "host_layers": ("llm_layers", None),
                },
            },
        ),
    },
    graphs={"pandagpt": "pandagpt"},
)
