"""CLIP: a picture and its caption in one space (arXiv 2103.00020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelgraft.plugin import FamilyCard, PartCard, PictureCard, TowerCard, WholeCard
from modelgraft_plugins.families import _clip_official
from modelgraft_plugins.families._formulas import text_tower, vision_tower
from modelgraft_plugins.families._shared import CLIP_PICTURES, EYE_SETTINGS, TEXT_SETTINGS, eye_sizes, text_sizes


class ClipSteps:
    """A norm before the first layer; behind the last one only the class token is normed."""

    def enter(self, tower: Any, pixels: Any, *, interpolate: bool) -> Any:
        """Patches with their places."""
        return tower.pre_layrnorm(tower.embeddings(pixels, interpolate_pos_encoding=interpolate))

    def layers(self, tower: Any) -> Sequence[Any]:
        """The blocks."""
        return tower.encoder.layers  # type: ignore[no-any-return]

    def layer(self, block: Any, hidden: Any) -> Any:
        """One of them, without a mask."""
        return block(hidden, None)

    def finish(self, tower: Any, hidden: Any, _settings: Mapping[str, Any]) -> tuple[Any, Any]:
        """Tokens and the class token."""
        return hidden, tower.post_layernorm(hidden[:, 0])


def _count_eye(f: Mapping[str, Any]) -> int:
    return vision_tower(f, lead=1, norms=2, patch_bias=False)


EYE = TowerCard(
    "image",
    style="clip",
    architecture="CLIPVisionModel",
    defaults={**eye_sizes(768, 3072, 12, 12, 32), "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
    settings=EYE_SETTINGS,
    lead=1,
    count=_count_eye,
    steps=ClipSteps(),
    idle=frozenset({"projection_dim", "vocab_size"}),  # of a head that is another part; the eyes of LLaVA state the second
)
TEXT = TowerCard(
    "text",
    style="clip",
    architecture="CLIPTextModel",
    defaults={
        **text_sizes(512, 2048, 8, 49408, 77), "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "eos_token_id": 49407, "pad_token_id": 1,
    },
    settings={**TEXT_SETTINGS, "eos_token_id": "eos_token_id"},
    fixed={"bos_token_id": None},
    count=text_tower,
    idle=frozenset({"projection_dim"}),
)  # fmt: skip
CARD = FamilyCard(
    "clip",
    "a picture and its caption in one space",
    wholes={
        "clip": WholeCard(
            parts={
                "vision_model": PartCard("vision_config", "clip_vision_model"),
                "text_model": PartCard("text_config", "clip_text_model"),
            },
            pictures="CLIP",
        ),
    },
    towers={"clip_vision_model": EYE, "clip_text_model": TEXT},
    pictures={"CLIP": PictureCard(CLIP_PICTURES, is_square=False, own={"use_square_size": "square"})},
    graphs={"clip": "clip"},
    layouts=(_clip_official.LAYOUT,),
)
