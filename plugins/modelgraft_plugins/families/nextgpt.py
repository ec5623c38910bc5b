"""NExT-GPT: any medium in and out, by what was trained between frozen giants (arXiv 2309.05519).

Its published file `pytorch_model.pt` holds the trained parts alone: projections, and of the language model the updates of LoRA and what
new tokens made of the embeddings and the head. A config.json beside it may state its sizes.
"""

from __future__ import annotations

from modelgraft.plugin import FamilyCard, PartCard, WholeCard

PARTS = ("gen_text_hidden_fcs", "gen_text_hidden_fcs_video", "gen_text_hidden_fcs_audio", "llama_proj", "llama_model")
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")  # what its code grafts LoRA into
CARD = FamilyCard(
    "nextgpt",
    "a language model that hears and sees by ImageBind, and asks diffusion models by signal tokens",
    wholes={
        "nextgpt": WholeCard(
            parts={name: PartCard() for name in PARTS},
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
    graphs={"nextgpt": "nextgpt/text"},  # the others stand on it, and add generators that no checkpoint names
)
