"""Mistral 3 and its eye, Pixtral: pictures of any size as rows of patches, whose ends a token tells (arXiv 2410.07073).

Pixtral itself is a LLaVA with this eye, by its `model_type`: see llava.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from modelgraft.plugin import FamilyCard, PartCard, TowerCard, WholeCard
from modelgraft_plugins.families._formulas import linear
from modelgraft_plugins.families._shared import BICUBIC, CLIP_MEAN, CLIP_STD, PLAIN

Attend = Callable[[Any, Any, Any], Any]

PREPARE: Mapping[str, Any] = {
    "processors": ("Pixtral",),
    "defaults": {
        "do_resize": True, "longest_edge": 1024, "resample": BICUBIC, "do_convert_rgb": True, "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": CLIP_MEAN, "image_std": CLIP_STD, "patch_size": 16,
    },
    "processor_patches": {"patch_size": ("patch_size", 16), "merge_size": ("spatial_merge_size", 1)},
    "marks": {
        "placeholder": ("image_token", "[IMG]"), "row_end": ("image_break_token", "[IMG_BREAK]"), "end": ("image_end_token", "[IMG_END]"),
    },
}  # fmt: skip


class PixtralSteps:
    """A norm behind the patches, and matrices without biases."""

    def enter(self, tower: Any, patches: Any) -> Any:
        """Each patch through one matrix, which transformers has as a convolution, and normed."""
        from torch.nn import functional

        weight = tower.patch_conv.weight.flatten(1)
        return tower.ln_pre(functional.linear(patches.to(weight.dtype), weight))

    def turns(self, tower: Any, hidden: Any, positions: Any) -> Any:
        """Cosines and sines."""
        return tower.patch_positional_embedding(hidden, positions)

    def layers(self, tower: Any) -> Sequence[Any]:
        """The layers of its transformer."""
        return tower.transformer.layers  # type: ignore[no-any-return]

    def layer(self, block: Any, hidden: Any, turns: Any, attend: Attend) -> Any:
        """One of them."""
        from transformers.models.pixtral.modeling_pixtral import apply_rotary_pos_emb

        attention, normed = block.attention, block.attention_norm(hidden)
        matrices = (attention.q_proj, attention.k_proj, attention.v_proj)
        queries, keys, values = (matrix(normed).unflatten(-1, (attention.num_heads, -1)) for matrix in matrices)
        queries, keys = apply_rotary_pos_emb(queries, keys, *turns, unsqueeze_dim=1)
        hidden = hidden + attention.o_proj(attend(queries, keys, values))
        return hidden + block.feed_forward(block.ffn_norm(hidden))


def _count(f: Mapping[str, Any]) -> int:
    width, inner = f["hidden_size"], f["intermediate_size"]
    block = 2 * width + 4 * linear(width, width, bias=False) + 3 * linear(width, inner, bias=False)
    return int(f["patch_values"] * width + width + f["num_hidden_layers"] * block)


_SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_channels", "patch_size", "hidden_act")
EYE = TowerCard(
    "patches",
    style="pixtral",
    architecture="PixtralVisionModel",
    defaults={
        "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16, "num_channels": 3,
        "patch_size": 16, "hidden_act": "gelu", "rope_theta": 10000.0,
    },
    settings={word: word for word in _SIZES},
    pooled=False,
    any_size=True,
    count=_count,
    steps=PixtralSteps(),
    idle=frozenset({"head_dim", "image_size", "rope_theta", "vocab_size"}),  # the first follows from the width, the second is a bound
)  # fmt: skip
CARD = FamilyCard(
    "mistral3",
    "pictures of any size, row by row, among the words of a Mistral",
    wholes={
        "mistral3": WholeCard(
            parts={
                "vision_tower": PartCard("vision_config", "pixtral"),
                "language_model": PartCard("text_config", "mistral", also="text_model", language="always"),
                "multi_modal_projector": PLAIN,
            },
            tied=True,
            components={
                "patches/prepare": PREPARE,
                "patches/encoder": {"fields": {"layer": ("vision_feature_layer", -1), "merge_size": ("spatial_merge_size", 2)}},
                "patches/merger": {
                    "family": "narrow",
                    "fields": {
                        "in_features": ("vision_config.hidden_size", 1024), "out_features": ("text_config.hidden_size", 5120),
                        "merge_size": ("spatial_merge_size", 2), "hidden_act": ("projector_hidden_act", "gelu"),
                        "bias": ("multimodal_projector_bias", False), "norm_eps": ("text_config.rms_norm_eps", 1e-5),
                    },
                },
            },
        ),
    },
    towers={"pixtral": EYE},
    graphs={"mistral3": "mistral3"},
)  # fmt: skip
