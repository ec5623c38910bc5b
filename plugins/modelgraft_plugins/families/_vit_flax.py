"""ViT as its authors save it: the parameter tree of their Flax code, joined by slashes, in files of numpy (.npz).

There are two generations of names: those of `vision_transformer` (the paper, AugReg) and those of `big_vision`, which has no place
for the class token. Source: both codes at github.com/google-research, and arXiv 2010.11929, 2106.10270.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from modelgraft.plugin import LayoutCard, TensorOrigin
from modelgraft_plugins.families._vit_sizes import grid_of, size_of
from modelgraft_plugins.stated import ABOUT, Table

Shapes = Mapping[str, tuple[int, ...]]
OLD, NEW = "Transformer/posembed_input/pos_embedding", "pos_embedding"
WRAPPED = ("", "params/", "opt/target/", "target/")  # around the tree, by who saved it
WORDS = Table(
    "config.json",
    frozenset({"num_classes", "image_size", "patch_size", "width", "depth", "mlp_dim", "num_heads", "rep_size"}),
    ABOUT | {"dropout", "scan", "remat_policy", "head_zeroinit", "variant"},
    {"pool_type": ("tok",), "posemb": ("learn",)},
)
# names in a block, of both generations -> name in Hugging Face layout
NORMS = {"LayerNorm_0": "layernorm_before", "LayerNorm_2": "layernorm_after", "LayerNorm_1": "layernorm_after"}
DENSE = {"Dense_0": "intermediate.dense", "Dense_1": "output.dense"}
BLOCK = re.compile(r"Transformer/encoderblock_(\d+)/(\w+?)/(?:(\w+)/)?(kernel|bias|scale)")
REST: Mapping[str, tuple[str, tuple[int, ...] | None]] = {  # -> name, new order of the axes
    "cls": ("vit.embeddings.cls_token", None), "embedding/kernel": ("vit.embeddings.patch_embeddings.projection.weight", (3, 2, 0, 1)),
    "embedding/bias": ("vit.embeddings.patch_embeddings.projection.bias", None), OLD: ("vit.embeddings.position_embeddings", None),
    NEW: ("vit.embeddings.position_embeddings", None), "Transformer/encoder_norm/scale": ("vit.layernorm.weight", None),
    "Transformer/encoder_norm/bias": ("vit.layernorm.bias", None), "pre_logits/kernel": ("vit.pooler.dense.weight", (1, 0)),
    "pre_logits/bias": ("vit.pooler.dense.bias", None), "head/kernel": ("classifier.weight", (1, 0)),
    "head/bias": ("classifier.bias", None),
}  # fmt: skip


def _around(shapes: Shapes) -> str | None:
    """What stands before the names of the tree; None: this is no such tree."""
    for before in WRAPPED:
        if f"{before}embedding/kernel" in shapes and f"{before}Transformer/encoder_norm/scale" in shapes:
            return before
    return None


def _knows(root: Mapping[str, Any], shapes: Shapes) -> bool:
    return root.get("model_type", "vit") == "vit" and _around(shapes) is not None


def _config(root: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    """The config of transformers, from the shapes alone; a config.json beside them is compared."""
    before = _around(shapes)
    tree = {key.removeprefix(before or ""): shape for key, shape in shapes.items() if key.startswith(before or "")}
    refused = WORDS.over(root)
    if refused:
        raise ValueError(f"the vision transformer here has no {', '.join(f'{key}: {value!r}' for key, value in sorted(refused.items()))}")
    if "cls" not in tree or (OLD not in tree and NEW not in tree):
        raise ValueError("it has no class token, or no learned places: a tower that pools otherwise is not served")
    attention = next((key for key in tree if key.endswith("/query/kernel")), "")
    if not attention or f"{attention.partition('/')[0]}/encoderblock_0/" not in attention:
        raise ValueError("its blocks are not numbered: layers that are stacked in one tensor (scan) are not served")
    patch, _, channels, width = tree["embedding/kernel"]
    places = tree[OLD][1] - 1 if OLD in tree else tree[NEW][1]
    inner = next(shape for key, shape in tree.items() if key.endswith("/Dense_0/kernel"))[1]
    found = {
        "model_type": "vit", "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6, "hidden_size": width, "intermediate_size": inner,
        "num_hidden_layers": len({key.split("/")[1] for key in tree if "/encoderblock_" in key}), "num_attention_heads": tree[attention][1],
        "num_channels": channels, "patch_size": patch, "image_size": size_of(grid_of(places, root.get("image_size"), patch), patch),
        "qkv_bias": True, "positions": "official", "num_labels": tree.get("head/bias", (0,))[0],
    }  # fmt: skip
    _compare(root, found)
    return {**found, **({"pre_logits": tree["pre_logits/bias"][0]} if "pre_logits/bias" in tree else {})}


def _compare(root: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raise ValueError where a config.json states other sizes than the tensors have."""
    names = {
        "num_classes": "num_labels", "patch_size": "patch_size", "width": "hidden_size", "depth": "num_hidden_layers",
        "mlp_dim": "intermediate_size", "num_heads": "num_attention_heads",
    }  # fmt: skip
    for key, ours in names.items():
        stated = root.get(key, found[ours])
        stated = stated[0] if isinstance(stated, list) else stated
        if stated is not None and stated != found[ours]:
            raise ValueError(f"its config.json states {key}: {stated}, its tensors have {found[ours]}")


def _tensors(config: Mapping[str, Any], shapes: Shapes) -> dict[str, TensorOrigin]:
    before, found = _around(shapes) or "", dict[str, TensorOrigin]()
    for key in shapes:
        name = key.removeprefix(before)
        if name in REST:
            target, axes = REST[name]
            found[target] = TensorOrigin(key, axes=axes, lead=int(name == NEW))
        elif (block := BLOCK.fullmatch(name)) is not None:
            placed = _in_block(config, key, block)
            found.update({f"vit.encoder.layer.{block[1]}.{placed[0]}": placed[1]} if placed is not None else {})
    return found


def _in_block(config: Mapping[str, Any], key: str, found: re.Match[str]) -> tuple[str, TensorOrigin] | None:
    """(name in the block, where it comes from) of a tensor of a block; None for one that is not known."""
    module, inside, last, width = found[2], found[3], found[4], config["hidden_size"]
    word, is_kernel = "bias" if last == "bias" else "weight", last == "kernel"
    turned = TensorOrigin(key, shape=(width, width), axes=(1, 0))  # of the matrices of heads, which have three axes
    if module in NORMS and inside is None:
        return f"{NORMS[module]}.{word}", TensorOrigin(key)
    if module.startswith("MlpBlock_") and inside in DENSE:
        return f"{DENSE[inside]}.{word}", TensorOrigin(key, axes=(1, 0) if is_kernel else None)
    if module.startswith("MultiHeadDotProductAttention_") and inside in ("query", "key", "value"):
        return f"attention.attention.{inside}.{word}", turned if is_kernel else TensorOrigin(key, shape=(width,))
    if module.startswith("MultiHeadDotProductAttention_") and inside == "out":
        return f"attention.output.dense.{word}", turned if is_kernel else TensorOrigin(key)
    return None


def _files(_root: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The published code resizes to the size of the tower, whatever the shape of a picture, and brings values into -1 to 1."""
    size = config["image_size"]
    height, width = (size, size) if isinstance(size, int) else size
    prepared = {
        "image_processor_type": "ViTImageProcessor", "size": {"height": height, "width": width}, "resample": 2,
        "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
    }  # fmt: skip
    return {"preprocessor_config.json": prepared}


LAYOUT = LayoutCard("the ViT of Flax", _knows, _config, _tensors, _files, idle=("opt/state/", "opt/step", "step", "extra/"))
