"""ViT: a picture as a row of patches (arXiv 2010.11929)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelgraft.plugin import FamilyCard, PictureCard, TowerCard, WholeCard
from modelgraft_plugins.families import _vit_flax, _vit_timm
from modelgraft_plugins.families._formulas import linear, vision_tower
from modelgraft_plugins.families._shared import BILINEAR, EYE_SETTINGS, HALF, eye_sizes, picture_defaults


class VitSteps:
    """A norm behind the last layer; the class token is the vector of the picture."""

    def enter(self, tower: Any, pixels: Any, *, interpolate: bool) -> Any:
        """Patches with their places."""
        return tower.embeddings(pixels, interpolate_pos_encoding=interpolate)

    def layers(self, tower: Any) -> Sequence[Any]:
        """The blocks."""
        return tower.layers  # type: ignore[no-any-return]

    def layer(self, block: Any, hidden: Any) -> Any:
        """One of them, without a mask."""
        return block(hidden, None)

    def finish(self, tower: Any, hidden: Any, settings: Mapping[str, Any]) -> tuple[Any, Any]:
        """Tokens, and the class token or what the layer before the classifier makes of it."""
        tokens = tower.layernorm(hidden)
        return tokens, tokens[:, 0] if settings["pre_logits"] is None else tower.pooler(tokens)


def _count(f: Mapping[str, Any]) -> int:
    pre = f.get("pre_logits")
    return vision_tower(f, lead=1) + (linear(f["hidden_size"], pre, bias=True) if pre is not None else 0)


def _pre_logits(width: int) -> dict[str, Any]:
    return {"pooler_output_size": width, "pooler_act": "tanh"}


EYE = TowerCard(
    "image",
    style="vit",
    architecture="ViTModel",
    defaults={**eye_sizes(768, 3072, 12, 12, 16), "hidden_act": "gelu", "layer_norm_eps": 1e-12, "qkv_bias": True},
    settings={**EYE_SETTINGS, "qkv_bias": "qkv_bias"},
    lead=1,
    count=_count,
    steps=VitSteps(),
    idle=frozenset({"encoder_stride", "pooler_act", "pooler_output_size"}),  # of heads that are other parts, or of no part
    obeyed=frozenset({"positions", "pre_logits"}),  # of the configs that the layouts below give
    more={
        "pre_logits": _pre_logits,
        "without": ("pooler",),  # of its pre-training; random after fine-tuning, as are these:
        "unused": ("pooler.dense.weight", "pooler.dense.bias", "embeddings.mask_token"),
    },
)
CARD = FamilyCard(
    "vit",
    "a classifier of pictures",
    wholes={"vit": WholeCard(pictures="ViT")},
    towers={"vit": EYE},
    pictures={"ViT": PictureCard(picture_defaults(224, resample=BILINEAR, mean=HALF, std=HALF, rgb=False))},
    graphs={"vit": "vit"},
    layouts=(_vit_timm.LAYOUT, _vit_flax.LAYOUT),
)
