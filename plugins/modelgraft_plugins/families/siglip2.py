"""SigLIP 2 with native proportions: a picture is cut into as many whole patches as fit (arXiv 2502.14786, NaFlex).

Its checkpoints for squares of a fixed size are of the model type of the first SigLIP. Here the picture keeps its rows and columns
of pixels until the tower cuts it, so that a batch has pictures of one size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelgraft.plugin import FamilyCard, InputError, PartCard, PictureCard, TowerCard, WholeCard
from modelgraft_plugins.families import siglip
from modelgraft_plugins.families._formulas import forward, norm, vision_tower
from modelgraft_plugins.families._shared import BILINEAR, HALF, eye_graph, eye_sizes, picture_defaults

_DOC = "See a picture in its own proportions: one vector for each patch and one for the whole, as SigLIP 2 does."


class Siglip2Steps(siglip.SiglipSteps):
    """As SigLIP, with patches that are cut here and places for as many rows and columns as there are."""

    def enter(self, tower: Any, pixels: Any, *, interpolate: bool) -> Any:  # noqa: ARG002 any size is taken
        """Patches in rows with their places. The class itself takes patches that were cut before, each in the order y, x, colour."""
        from torch.nn import functional

        words = tower.embeddings
        side, (height, width) = words.patch_size, pixels.shape[2:]
        if isinstance(height, int) and (height % side or width % side):
            found = f"SigLIP 2 takes whole patches of {side} pixels, and this picture has {width} x {height}"
            raise InputError(f"{found}: prepare it as its processor does")
        kernel = words.patch_embedding.weight.unflatten(1, (side, side, -1)).permute(0, 3, 1, 2)
        patches = functional.conv2d(pixels, kernel, words.patch_embedding.bias, stride=side)  # [batch width rows columns]
        square = words.position_embedding.weight.unflatten(0, (words.position_embedding_size, -1)).permute(2, 0, 1)[None]
        places = functional.interpolate(square.float(), patches.shape[2:], mode="bilinear", align_corners=False, antialias=True)
        return (patches + places.to(patches.dtype)).flatten(2).transpose(1, 2)

    def finish(self, tower: Any, hidden: Any, _settings: Mapping[str, Any]) -> tuple[Any, Any]:
        """Tokens, and what the head makes of them."""
        tokens = tower.post_layernorm(hidden)
        return tokens, tower.head(tokens, None) if tower.use_head else None


def _count(f: Mapping[str, Any]) -> int:
    width, places = f["hidden_size"], f["num_patches"]
    head = width + (4 * width * width + 4 * width) + norm(width) + forward(width, f["intermediate_size"])
    square = vision_tower({**f, "qkv_bias": True, "image_size": 0}, lead=0)  # without places
    return square + int(places * width) + (head if f["vision_use_head"] else 0)


CARD = FamilyCard(
    "siglip2",
    "a picture in its own proportions, and its caption, in one space",
    wholes={
        "siglip2": WholeCard(parts={"vision_model": PartCard("vision_config", "siglip2_vision_model")}, pictures="Siglip2"),
    },
    towers={
        "siglip2_vision_model": TowerCard(
            "image",
            defaults={
                **{word: value for word, value in eye_sizes(768, 3072, 12, 12, 16).items() if word != "image_size"},
                "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6, "vision_use_head": True, "num_patches": 256,
            },
            pooled="vision_use_head",
            any_size=True,
            count=_count,
            steps=Siglip2Steps(),
        ),
    },
    pictures={
        "Siglip2": PictureCard(
            {
                **picture_defaults(16, resample=BILINEAR, mean=HALF, std=HALF, rgb=False), "size": None,
                "max_num_patches": 256, "patch_size": 16,
            },
            own={"max_num_patches": "patches", "patch_size": "patches"},
        ),
    },
    graphs={
        "siglip2": eye_graph("siglip2", _DOC, part="#vision_model"),
        "siglip2_vision_model": eye_graph("siglip2", _DOC),
    },
)  # fmt: skip
