"""DINOv2: an eye that learned from pictures alone (arXiv 2304.07193), and the same with registers (arXiv 2309.16588)."""

from __future__ import annotations

from modelgraft.plugin import FamilyCard, PictureCard, TowerCard, WholeCard
from modelgraft_plugins.families._formulas import Facts, forward, linear, norm
from modelgraft_plugins.families._shared import CLIP_PICTURES, eye_graph, eye_sizes

# What its configs mean where they are silent, beside sizes: transformers 5.23, Dinov2Config; a test compares them.
_OWN = {"mlp_ratio": 4, "qkv_bias": True, "use_swiglu_ffn": False, "use_mask_token": True, "num_register_tokens": 0}
_SILENT = {**eye_sizes(768, 3072, 12, 12, 14), "hidden_act": "gelu", "layer_norm_eps": 1e-6, **_OWN}
_GRAPH = eye_graph("dinov2", "See a picture: one vector for each patch and one for the whole, as DINOv2 learned it from pictures alone.")


def _count(f: Facts) -> int:
    """Patches and places, class, mask and register tokens, blocks whose two results are scaled, and a last norm."""
    width, patch, inner = f["hidden_size"], f["patch_size"], int(f["hidden_size"] * f["mlp_ratio"])
    attention = 3 * linear(width, width, bias=f["qkv_bias"]) + linear(width, width, bias=True)
    feed = forward(width, inner)
    if f["use_swiglu_ffn"]:
        inner = (int(inner * 2 / 3) + 7) // 8 * 8  # two thirds, up to a multiple of eight
        feed = 2 * linear(width, inner, bias=True) + linear(inner, width, bias=True)
    block = attention + feed + 2 * norm(width) + 2 * width
    patches = linear(f["num_channels"] * patch * patch, width, bias=True)
    tokens = 1 + bool(f["use_mask_token"]) + f["num_register_tokens"]
    places = (f["image_size"] // patch) ** 2 + 1
    return int(patches + (tokens + places) * width + f["num_hidden_layers"] * block + norm(width))


CARD = FamilyCard(
    "dinov2",
    "an eye that learned from pictures alone",
    wholes={"dinov2": WholeCard(pictures="Bit")},  # files of the other name their own
    towers={
        "dinov2": TowerCard("image", defaults=_SILENT, lead=1, any_size=True, count=_count),
        "dinov2_with_registers": TowerCard(
            "image",
            defaults={**_SILENT, "patch_size": 16, "num_register_tokens": 4},
            lead="num_register_tokens+1",
            any_size=True,
            count=_count,
        ),
    },
    pictures={"Bit": PictureCard(CLIP_PICTURES, is_square=False)},
    graphs={"dinov2": _GRAPH, "dinov2_with_registers": _GRAPH},
)
