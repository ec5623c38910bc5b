"""LLaVA: the patches of CLIP, projected, stand among the words of a language model (arXiv 2304.08485)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelgraft.plugin import FamilyCard, PartCard, PictureCard, WholeCard
from modelgraft_plugins.families import mistral3
from modelgraft_plugins.families._llava_official import LAYOUT
from modelgraft_plugins.families._shared import CLIP_PICTURES, PLAIN

PARTS = {
    "vision_tower": PartCard("vision_config", "clip_vision_model", strip="vision_model."),
    "language_model": PartCard("text_config", "llama", also="text_model", language="always"),
    "multi_modal_projector": PLAIN,
    "vision_model": PartCard("vision_config", "clip_vision_model", also="vision_tower", strip="vision_model."),  # where a CLIP is asked for
}
# Relatives: their parts lie as those of a LLaVA do, and how they choose among layers and tokens is not said here.
_KIN = {
    "vision_tower": PartCard("vision_config", strip="vision_model."),
    "language_model": PARTS["language_model"],
}

# Pixtral by its config: a LLaVA whose eye reads pictures at their own size. All of its patches are tokens.
PIXTRAL: Mapping[str, Any] = {
    "patches/prepare": mistral3.PREPARE,
    "patches/encoder": {
        "fields": {"layer": ("vision_feature_layer", -2)},
        "needs": {"vision_feature_select_strategy": ("default", "full")},
    },
}


def _graph(config: Mapping[str, Any]) -> str:
    """The graph of a checkpoint, by its eye."""
    eye = (config.get("vision_config") or {}).get("model_type")
    if eye == "pixtral":
        return "pixtral"
    official = config.get("mm_projector_type")  # a word of the layout of its authors
    return "llava" if official is None else "llava/v1" if official == "linear" else "llava/v1_5"


CARD = FamilyCard(
    "llava",
    "the patches of a picture stand among the words of a language model",
    wholes={
        "llava": WholeCard(
            parts=PARTS,
            pictures="Llava",
            layer=("vision_feature_layer", -2),
            select=("vision_feature_select_strategy", "default"),
            tied=False,
            tied_inside=True,
            components=PIXTRAL,
        ),
        "llava_next_video": WholeCard(parts=_KIN, tied=False, tied_inside=True),
        "video_llava": WholeCard(parts=_KIN, tied=False),
        "vipllava": WholeCard(parts=_KIN, tied=False, pictures="CLIP"),
    },
    pictures={"Llava": PictureCard({**CLIP_PICTURES, "do_pad": False}, is_square=False)},
    graphs={"llava": _graph},
    layouts=(LAYOUT,),
)
