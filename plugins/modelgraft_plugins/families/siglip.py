"""SigLIP: CLIP with a sigmoid loss, and an attention head in place of the class token (arXiv 2303.15343)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelgraft.plugin import FamilyCard, PartCard, PictureCard, TowerCard, WholeCard
from modelgraft_plugins.families._formulas import forward, norm, text_tower, vision_tower
from modelgraft_plugins.families._shared import BICUBIC, EYE_SETTINGS, HALF, TEXT_SETTINGS, eye_sizes, picture_defaults, text_sizes


class SiglipSteps:
    """A norm behind the last layer, and a head that pools where there is one."""

    def enter(self, tower: Any, pixels: Any, *, interpolate: bool) -> Any:
        """Patches with their places."""
        return tower.embeddings(pixels, interpolate_pos_encoding=interpolate)

    def layers(self, tower: Any) -> Sequence[Any]:
        """The blocks."""
        return tower.encoder.layers  # type: ignore[no-any-return]

    def layer(self, block: Any, hidden: Any) -> Any:
        """One of them, without a mask."""
        return block(hidden, None)

    def finish(self, tower: Any, hidden: Any, settings: Mapping[str, Any]) -> tuple[Any, Any]:
        """Tokens, and what the head makes of them."""
        tokens = tower.post_layernorm(hidden)
        return tokens, tower.head(tokens) if settings["attention_head"] else None


def _count_eye(f: Mapping[str, Any]) -> int:
    width, inner = f["hidden_size"], f["intermediate_size"]
    head = width + (4 * width * width + 4 * width) + norm(width) + forward(width, inner)
    return vision_tower({**f, "qkv_bias": True}, lead=0) + (head if f["attention_head"] else 0)


def _count_text(f: Mapping[str, Any]) -> int:
    return text_tower(f) + int(f["hidden_size"] * f["pooled_size"] + f["pooled_size"])


EYE = TowerCard(
    "image",
    style="siglip",
    architecture="SiglipVisionModel",
    defaults={**eye_sizes(768, 3072, 12, 12, 16), "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6, "attention_head": True},
    names={"attention_head": "vision_use_head"},
    settings={**EYE_SETTINGS, "attention_head": "vision_use_head"},
    pooled="attention_head",
    count=_count_eye,
    steps=SiglipSteps(),
    obeyed=frozenset({"positions"}),  # of configs that are not transformers' own
    idle=frozenset({"projection_dim", "num_image_tokens", "projector_hidden_act"}),  # of a head that is another part, and of PaliGemma
)
TEXT = TowerCard(
    "text",
    style="siglip",
    architecture="SiglipTextModel",
    defaults={
        **text_sizes(768, 3072, 12, 32000, 64), "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6, "eos_token_id": 49407,
        "pad_token_id": 1, "projection_size": None,
    },
    settings={**TEXT_SETTINGS, "pooled_size": "projection_size"},
    fixed={"eos_token_id": None, "bos_token_id": None},
    count=_count_text,
    more={"padding": "max_length"},  # it was trained so, and pools the last position
)  # fmt: skip
CARD = FamilyCard(
    "siglip",
    "a picture and its caption in one space, told apart one by one",
    wholes={
        "siglip": WholeCard(
            parts={
                "vision_model": PartCard("vision_config", "siglip_vision_model"),
                "text_model": PartCard("text_config", "siglip_text_model"),
            },
            pictures="Siglip",
        ),
    },
    towers={"siglip_vision_model": EYE, "siglip_text_model": TEXT},
    pictures={"Siglip": PictureCard(picture_defaults(224, resample=BICUBIC, mean=HALF, std=HALF), is_square=False)},
    graphs={"siglip": "siglip"},
)
