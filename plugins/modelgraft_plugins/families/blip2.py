"""BLIP-2: a frozen eye and a frozen language model with a Q-Former between them (arXiv 2301.12597)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelgraft.plugin import FamilyCard, PartCard, PictureCard, TowerCard, WholeCard
from modelgraft_plugins.families import _blip2_lavis
from modelgraft_plugins.families._formulas import vision_tower
from modelgraft_plugins.families._shared import BICUBIC, CLIP_MEAN, CLIP_STD, EYE_SETTINGS, PLAIN, eye_sizes, picture_defaults


class EvaSteps:
    """A norm behind the last layer; the class token is normed twice, as in BLIP-2."""

    def enter(self, tower: Any, pixels: Any, *, interpolate: bool) -> Any:
        """Patches with their places."""
        return tower.embeddings(pixels, interpolate_pos_encoding=interpolate)

    def layers(self, tower: Any) -> Sequence[Any]:
        """The blocks."""
        return tower.encoder.layers  # type: ignore[no-any-return]

    def layer(self, block: Any, hidden: Any) -> Any:
        """One of them."""
        return block(hidden)

    def finish(self, tower: Any, hidden: Any, _settings: Mapping[str, Any]) -> tuple[Any, Any]:
        """Tokens and the class token."""
        tokens = tower.post_layernorm(hidden)
        return tokens, tower.post_layernorm(tokens[:, 0])


def _count(f: Mapping[str, Any]) -> int:
    return vision_tower(f, lead=1)


EYE = TowerCard(
    "image",
    style="eva",
    architecture="Blip2VisionModel",
    defaults={**eye_sizes(1408, 6144, 39, 16, 14), "hidden_act": "gelu", "layer_norm_eps": 1e-6, "qkv_bias": True},
    settings={**EYE_SETTINGS, "qkv_bias": "qkv_bias"},
    lead=1,
    count=_count,
    steps=EvaSteps(),
)
QFORMER: dict[str, Any] = {
    "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072, "cross_attention_frequency": 2,
    "hidden_act": "gelu", "layer_norm_eps": 1e-12, "vocab_size": 30522, "max_position_embeddings": 512, "pad_token_id": 0,
    "encoder_hidden_size": 1408,
}  # fmt: skip


PICTURES = PictureCard(picture_defaults(384, resample=BICUBIC, mean=CLIP_MEAN, std=CLIP_STD))


def parts(kind: str) -> dict[str, PartCard]:
    """The parts that BLIP-2 and its relatives have."""
    return {
        "vision_model": PartCard("vision_config", f"{kind}_vision_model"),
        "qformer": PartCard("qformer_config", f"{kind}_qformer"),
        "language_model": PartCard("text_config", "opt", also="text_model", language="always"),
        "language_projection": PLAIN,
        "query_tokens": PLAIN,
    }


# of the first stage: what pictures and texts are compared by, and, in the files of its authors, the head that writes words
FIRST_STAGE = dict.fromkeys(("vision_projection", "text_projection", "itm_head", "cls"), PLAIN)


def graph_of(config: Mapping[str, Any]) -> str:
    """The graph that a checkpoint becomes: one of the first stage compares, one of the second writes."""
    return "blip2/match" if config.get("qformer_config", {}).get("use_qformer_text_input") else "blip2"


CARD = FamilyCard(
    "blip2",
    "a frozen eye and a frozen language model with a Q-Former between them",
    wholes={"blip-2": WholeCard(parts={**parts("blip_2"), **FIRST_STAGE}, pictures="Blip", begin="text", inner=True)},
    towers={
        "blip_2_vision_model": EYE,
        "blip_2_qformer": TowerCard("queries", style="plain", architecture="Blip2QFormerModel", defaults=QFORMER),
    },
    pictures={"Blip": PICTURES},
    graphs={"blip-2": graph_of},
    layouts=(_blip2_lavis.LAYOUT,),
)
