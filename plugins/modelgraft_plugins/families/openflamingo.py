"""OpenFlamingo: an open Flamingo, whose files are its tensors alone (arXiv 2308.01390).

A config.json beside them may state the arguments of its code under `perceiver_config` and `lang_encoder_config`.
"""

from __future__ import annotations

from modelgraft.plugin import FamilyCard, WholeCard

CARD = FamilyCard(
    "openflamingo",
    "a frozen language model looks at pictures through gated layers",
    wholes={
        "openflamingo": WholeCard(
            components={
                "resampler/perceiver": {
                    "fields": {
                        "hidden_size": ("dim", None), "depth": ("depth", None), "num_heads": ("heads", None),
                        "head_dim": ("dim_head", None), "num_latents": ("num_latents", None), "ff_mult": ("ff_mult", None),
                        "max_num_frames": ("max_num_frames", None), "max_num_media": ("max_num_media", None),
                    },
                },
                "adapter/gated_cross_attention": {
                    "fields": {
                        "every": ("cross_attn_every_n_layers", None), "media_size": ("dim_visual", None), "num_heads": ("heads", None),
                        "head_dim": ("dim_head", None), "ff_mult": ("ff_mult", None),
                    },
                },
            },
        ),
    },
)  # fmt: skip
