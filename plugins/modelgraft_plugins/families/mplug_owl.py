"""mPLUG-Owl: an eye and a language model with an abstractor between them (arXiv 2304.14178).

Its eye is that of CLIP with a norm behind all tokens; its files keep queries, keys and values of each head in one matrix.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from modelgraft.plugin import FamilyCard, LayoutCard, PartCard, TensorOrigin, TowerCard, WholeCard
from modelgraft_plugins.families._shared import EYE_SETTINGS, PLAIN, eye_sizes
from modelgraft_plugins.families.blip2 import EvaSteps
from modelgraft_plugins.families.clip import EYE as CLIP_EYE
from modelgraft_plugins.families.clip import ClipSteps

WHOLE, EYE_TYPE, ABSTRACTOR = "mplug-owl", "mplug_owl_vision_model", "mplug_owl_visual_abstract"
HEAD = 64  # numbers in a head of the published eye, where no config says how many heads there are
KEPT = ("abstractor.", "query_tokens", "language_model.")  # parts that lie in its files as they are read
NAMES: Mapping[str, str] = {
    "embeddings.pre_layernorm.": "pre_layrnorm.",
    "embeddings.patch_embed.": "embeddings.patch_embedding.",
    "post_layernorm.": "post_layernorm.",
}
BLOCK: Mapping[str, str] = {
    "self_attn.dense": "self_attn.out_proj", "input_layernorm": "layer_norm1", "post_attention_layernorm": "layer_norm2",
    "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2",
}  # fmt: skip
IN_BLOCK = re.compile(rf"(encoder\.layers\.\d+\.)({'|'.join(map(re.escape, BLOCK))})\.(weight|bias)")
FUSED = re.compile(r"(encoder\.layers\.\d+\.self_attn\.)query_key_value\.(weight|bias)")


class OwlSteps(ClipSteps):
    """The layers of CLIP; behind the last one every token is normed, and the class token twice."""

    finish = EvaSteps.finish


def _knows(root: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> bool:
    return root.get("model_type") in (WHOLE, EYE_TYPE) or (not root and "abstractor.vit_eos" in shapes and "query_tokens" in shapes)


def _config(root: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """That of the files, or what their tensors say; heads are 64 wide where nothing says it."""
    if root:
        return dict(root)
    places, patch = shapes["vision_model.embeddings.position_embedding"], shapes["vision_model.embeddings.patch_embed.weight"]
    inner = shapes["vision_model.encoder.layers.0.mlp.fc1.weight"]
    layers = len({key.split(".")[3] for key in shapes if key.startswith("vision_model.encoder.layers.")})
    sizes = {"hidden_size": inner[1], "intermediate_size": inner[0], "num_hidden_layers": layers, "num_attention_heads": inner[1] // HEAD}
    side = round((places[1] - 1) ** 0.5) * patch[-1]
    return {"model_type": WHOLE, "vision_config": {"model_type": EYE_TYPE, **sizes, "patch_size": patch[-1], "image_size": side}}


def _tensors(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, TensorOrigin]:
    """The eye under the names of CLIP, all else as it is."""
    is_whole = config["model_type"] == WHOLE
    before = "vision_model." if is_whole else ""
    eye = config.get("vision_config", {}) if is_whole else config
    heads = eye.get("num_attention_heads", EYE.defaults["num_attention_heads"])
    found: dict[str, TensorOrigin] = {}
    for key, shape in shapes.items():
        if is_whole and key.startswith(KEPT):
            found[key] = TensorOrigin(key)
        elif key.startswith(before):
            found |= {before + name: origin for name, origin in _placed(key, key.removeprefix(before), shape, heads).items()}
    return found


def _placed(key: str, own: str, shape: tuple[int, ...], heads: int) -> dict[str, TensorOrigin]:
    """Where a tensor of the eye goes; {}: nowhere."""
    if own == "embeddings.cls_token":
        return {"embeddings.class_embedding": TensorOrigin(key, shape=(-1,))}
    if own == "embeddings.position_embedding":
        return {"embeddings.position_embedding.weight": TensorOrigin(key, shape=shape[1:])}
    if (fused := FUSED.fullmatch(own)) is not None:
        apart, into = (heads, 3, -1, *shape[1:]), (-1, *shape[1:])
        kinds = enumerate(("q_proj", "k_proj", "v_proj"))
        return {f"{fused[1]}{name}.{fused[2]}": TensorOrigin(key, shape=apart, pick=(1, at), into=into) for at, name in kinds}
    if (inside := IN_BLOCK.fullmatch(own)) is not None:
        return {f"{inside[1]}{BLOCK[inside[2]]}.{inside[3]}": TensorOrigin(key)}
    return {to + own.removeprefix(start): TensorOrigin(key) for start, to in NAMES.items() if own.startswith(start)}


EYE = TowerCard(
    "image",
    style="clip_normed",
    architecture="CLIPVisionModel",
    defaults={**eye_sizes(1024, 4096, 24, 16, 14), "hidden_act": "quick_gelu", "layer_norm_eps": 1e-6},
    settings=EYE_SETTINGS,
    lead=1,
    count=CLIP_EYE.count,
    steps=OwlSteps(),
    idle=frozenset({"projection_dim", "use_flash_attn"}),  # of a head that is not there, and of how attention is computed
)
CARD = FamilyCard(
    "mplug_owl",
    "an eye and a language model with an abstractor between them",
    wholes={
        WHOLE: WholeCard(
            parts={
                "vision_model": PartCard("vision_config", EYE_TYPE),
                "abstractor": PartCard("visual_abstractor_config", ABSTRACTOR),
                "query_tokens": PLAIN,
                "language_model": PartCard("text_config", "llama", also="text_model", language="always"),
            },
            pictures="CLIP",
            components={
                "qformer/queries": {
                    "num_query_tokens": ("num_query_tokens", 64), "hidden_size": ("visual_abstractor_config.hidden_size", 1024),
                },
            },
        ),
    },
    towers={EYE_TYPE: EYE},
    graphs={WHOLE: "mplug_owl"},
    layouts=(LayoutCard("mPLUG-Owl", _knows, _config, _tensors),),
)  # fmt: skip
