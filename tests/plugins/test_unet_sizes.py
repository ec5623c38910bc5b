"""What the formulas of UNets count is what diffusers builds."""

from __future__ import annotations

import pytest
import torch

from modelgraft_plugins.diffusion.unet_sizes import parameters_of
from support import painting, sounding

pytestmark = [
    pytest.mark.slow,  # it imports diffusers
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]
DEEP = {"layers_per_block": 3, "block_out_channels": (8, 12, 20), "norm_num_groups": 4}
CASES = {
    "pictures": ("UNet2DConditionModel", painting.UNET),
    "published pictures": ("UNet2DConditionModel", {"cross_attention_dim": 768}),
    "sounds": ("UNet2DConditionModel", sounding.UNET),
    "sounds, beside": ("UNet2DConditionModel", {**sounding.UNET, "class_embeddings_concat": False}),
    "films": ("UNet3DConditionModel", sounding.FILM_UNET),
    "deeper films": (
        "UNet3DConditionModel",
        {
            **sounding.FILM_UNET, **DEEP, "attention_head_dim": 4, "in_channels": 3, "out_channels": 7,
            "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D", "CrossAttnDownBlock3D"),
            "up_block_types": ("CrossAttnUpBlock3D", "UpBlock3D", "UpBlock3D"),
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_formula_counts_what_is_built(case):
    import diffusers

    name, config = CASES[case]
    with torch.device("meta"):
        model = getattr(diffusers, name)(**config)
    stated = {**{key: list(value) if isinstance(value, tuple) else value for key, value in model.config.items()}, "_class_name": name}
    assert parameters_of(stated) == sum(one.numel() for one in model.parameters())


def test_kinds_that_the_formula_does_not_know_are_not_guessed():
    known = {"_class_name": "UNet2DConditionModel", **painting.UNET}
    assert parameters_of(known) is not None
    assert parameters_of({**known, "addition_embed_type": "text_image"}) is None
    assert parameters_of({**known, "addition_embed_type": "text_time"}) is None  # and how wide it is, is not stated
    assert parameters_of({**known, "down_block_types": ("AttnDownBlock2D", "DownBlock2D")}) is None
    assert parameters_of({}) is None
