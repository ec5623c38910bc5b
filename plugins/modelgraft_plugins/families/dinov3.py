"""DINOv3: an eye that learned from pictures alone, with rotated places, so that pictures may have any size (arXiv 2508.10104)."""

from __future__ import annotations

from modelgraft.plugin import FamilyCard, PictureCard, TowerCard, WholeCard
from modelgraft_plugins.families._formulas import Facts, linear, norm
from modelgraft_plugins.families._shared import BILINEAR, IMAGENET_MEAN, IMAGENET_STD, eye_graph, eye_sizes, picture_defaults

# What its configs mean where they are silent, beside sizes: transformers 5.23, DINOv3ViTConfig; a test compares them.
_OWN = {
    "query_bias": True, "key_bias": False, "value_bias": True, "proj_bias": True, "mlp_bias": True, "use_gated_mlp": False,
    "num_register_tokens": 0,
}  # fmt: skip
_GRAPH = eye_graph("dinov3", "See a picture: one vector for each patch and one for the whole, as DINOv3 learned it from pictures alone.")


def _count(f: Facts) -> int:
    """Patches, class, mask and register tokens, blocks whose two results are scaled, and a last norm; places are no numbers."""
    width, inner, patch = f["hidden_size"], f["intermediate_size"], f["patch_size"]
    attention = sum(linear(width, width, bias=f[f"{name}_bias"]) for name in ("query", "key", "value", "proj"))
    feed = (1 + bool(f["use_gated_mlp"])) * linear(width, inner, bias=f["mlp_bias"]) + linear(inner, width, bias=f["mlp_bias"])
    block = attention + feed + 2 * norm(width) + 2 * width
    patches = linear(f["num_channels"] * patch * patch, width, bias=True)
    return int(patches + (2 + f["num_register_tokens"]) * width + f["num_hidden_layers"] * block + norm(width))


CARD = FamilyCard(
    "dinov3",
    "an eye that learned from pictures alone, of any size",
    wholes={"dinov3_vit": WholeCard(pictures="DINOv3ViT")},
    towers={
        "dinov3_vit": TowerCard(
            "image",
            defaults={**eye_sizes(384, 1536, 12, 6, 16), "hidden_act": "gelu", "layer_norm_eps": 1e-5, **_OWN},
            lead="num_register_tokens+1",
            any_size=True,
            count=_count,
        ),
    },
    pictures={  # its class turns bytes into numbers before it resizes, so that nothing is rounded between
        "DINOv3ViT": PictureCard(
            {**picture_defaults(224, resample=BILINEAR, mean=IMAGENET_MEAN, std=IMAGENET_STD, rgb=False), "rounds": False}
        ),
    },
    graphs={"dinov3_vit": _GRAPH},
)
