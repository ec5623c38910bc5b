"""ViT as timm saves it: a folder with timm's config.json, or a file of its tensors alone.

Source: `VisionTransformer` of timm 1.0, its `config.json` on the hub and the defaults of its `_cfg`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from modelgraft.plugin import LayoutCard, TensorOrigin
from modelgraft_plugins.families._vit_sizes import HEADS, NAMED, VARIANTS, grid_of, size_of
from modelgraft_plugins.stated import ABOUT, REMARKS, Table

Shapes = Mapping[str, tuple[int, ...]]
FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}  # word of timm -> number of PIL
MARKS = ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.0.norm1.weight", "norm.weight")
SILENT = {"crop_pct": 0.9, "interpolation": "bicubic", "mean": (0.5,) * 3, "std": (0.5,) * 3, "crop_mode": "center"}  # `_cfg` of timm

# What becomes of the words of timm's model, beside its config.json's own. Those of a list do nothing at these values.
WORDS = Table(
    "config.json",
    frozenset({
        "architecture", "num_classes", "pretrained_cfg", "model_args", "label_names", "img_size", "patch_size", "embed_dim", "depth",
        "num_heads", "mlp_ratio", "qkv_bias", "in_chans", "representation_size",
    }),
    ABOUT | {
        "num_features", "label_descriptions", "dynamic_img_size", "drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate",
        "attn_drop_rate", "drop_path_rate", "weight_init", "fix_init", "strict_img_size",
    },
    {
        "global_pool": ("token",), "class_token": (True,), "no_embed_class": (False,), "pos_embed": ("learn",), "reg_tokens": (0,),
        "pre_norm": (False,), "final_norm": (True,), "fc_norm": (False,), "qk_norm": (False,), "scale_attn_norm": (False,),
        "scale_mlp_norm": (False,), "proj_bias": (True,), "init_values": (), "dynamic_img_pad": (False,), "embed_norm_layer": (),
        "norm_layer": (), "act_layer": ("gelu",), "block_fn": (), "mlp_layer": (), "attn_layer": (), "pool_include_prefix": (False,),
    },
)  # fmt: skip

# name in timm, with N for the number of the block -> name in Hugging Face layout. Queries, keys and values are one matrix in timm.
BLOCK: Mapping[str, str] = {
    "norm1": "layernorm_before", "attn.proj": "attention.output.dense", "norm2": "layernorm_after", "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}  # fmt: skip
REST: Mapping[str, str] = {
    "cls_token": "vit.embeddings.cls_token", "pos_embed": "vit.embeddings.position_embeddings",
    "patch_embed.proj.weight": "vit.embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "vit.embeddings.patch_embeddings.projection.bias",
    "norm.weight": "vit.layernorm.weight", "norm.bias": "vit.layernorm.bias",
    "pre_logits.fc.weight": "vit.pooler.dense.weight", "pre_logits.fc.bias": "vit.pooler.dense.bias",
    "head.weight": "classifier.weight", "head.bias": "classifier.bias",
}  # fmt: skip
QKV = re.compile(r"blocks\.(\d+)\.attn\.qkv\.(weight|bias)")
IN_BLOCK = re.compile(rf"blocks\.(\d+)\.({'|'.join(map(re.escape, BLOCK))})\.(weight|bias)")


def _knows(root: Mapping[str, Any], shapes: Shapes) -> bool:
    if str(root.get("architecture", "")).startswith("vit_"):
        return "model_type" not in root and (not shapes or MARKS[3] in shapes)
    if root.get("model_type", "vit") != "vit" or not all(key in shapes for key in MARKS):
        return False
    return "model_type" in root or all(_is_placed(key) for key in shapes)


def _is_placed(key: str) -> bool:
    return key in REST or QKV.fullmatch(key) is not None or IN_BLOCK.fullmatch(key) is not None


def _config(root: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    """The config of transformers. Words of the config go before what the name of the architecture says, and shapes before both."""
    words = {**root, **root.get("model_args", {})}
    refused = WORDS.over(words)
    if refused:
        raise ValueError(f"the vision transformer here has no {', '.join(f'{key}: {value!r}' for key, value in sorted(refused.items()))}")
    found = {**_of_name(words), **_of_words(words), **(_of_shapes(words, shapes) if shapes else {})}
    classes = found.pop("num_labels", words.get("num_classes", 0))
    heads = words.get("num_heads", found.get("num_attention_heads", HEADS.get(found.get("hidden_size", 0), 0)))
    remarks = {} if "pretrained_cfg" in root else {REMARKS: [list(_SILENT_PICTURES)]}
    return {
        "model_type": "vit", "hidden_act": "gelu", "layer_norm_eps": 1e-6, **found, "num_attention_heads": heads, "positions": "timm",
        **labels(root, classes), **remarks,
    }  # fmt: skip


_SILENT_PICTURES = (
    "nothing beside these tensors says how pictures are prepared: as timm does then (bicubic, 0.9 of the middle, mean 0.5)",
    "put timm's config.json beside them, or say it at vision/preprocess: image_mean, image_std, resample, size",
)


def _of_name(words: Mapping[str, Any]) -> dict[str, Any]:
    named = NAMED.match(str(words.get("architecture", "")) + "_")
    if named is None or named["size"] not in VARIANTS:
        return {}
    size = VARIANTS[named["size"]]
    return {
        "hidden_size": size.width, "intermediate_size": size.inner, "num_hidden_layers": size.layers, "num_attention_heads": size.heads,
        "patch_size": int(named["patch"]), "image_size": int(named["side"]),
    }  # fmt: skip


def _of_words(words: Mapping[str, Any]) -> dict[str, Any]:
    keys = {
        "embed_dim": "hidden_size", "depth": "num_hidden_layers", "num_heads": "num_attention_heads", "patch_size": "patch_size",
        "in_chans": "num_channels", "qkv_bias": "qkv_bias", "representation_size": "pre_logits",
    }  # fmt: skip
    found = {ours: words[key] for key, ours in keys.items() if words.get(key) is not None}
    if "embed_dim" in words and "mlp_ratio" in words:
        found["intermediate_size"] = int(words["embed_dim"] * words["mlp_ratio"])
    size = _stated_size(words)
    return {**found, **({"image_size": size} if size is not None else {})}


def _stated_size(words: Mapping[str, Any]) -> Any:
    """The size of the pictures: a side, [height, width] or None."""
    size = words.get("img_size", words.get("pretrained_cfg", {}).get("input_size"))
    pair = tuple(size)[-2:] if isinstance(size, list | tuple) else (size, size)
    return pair[0] if pair[0] == pair[1] else list(pair)


def _of_shapes(words: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    lacking = [key for key in (*MARKS, "blocks.0.mlp.fc1.weight") if key not in shapes]
    if lacking:
        raise ValueError(f"it has no {', '.join(lacking)}")
    width, channels, patch, _ = shapes["patch_embed.proj.weight"]
    grid = grid_of(shapes["pos_embed"][1] - 1, _stated_size(words), patch)
    found: dict[str, Any] = {
        "hidden_size": width, "num_channels": channels, "patch_size": patch, "image_size": size_of(grid, patch),
        "num_hidden_layers": len({key.split(".")[1] for key in shapes if key.startswith("blocks.")}),
        "intermediate_size": shapes["blocks.0.mlp.fc1.weight"][0], "qkv_bias": "blocks.0.attn.qkv.bias" in shapes,
    }  # fmt: skip
    if (pre := shapes.get("pre_logits.fc.weight")) is not None:
        found["pre_logits"] = pre[0]
    if (head := shapes.get("head.weight")) is not None:
        found["num_labels"] = head[0]
    return found


def labels(root: Mapping[str, Any], classes: int) -> dict[str, Any]:
    """What a config of transformers says of the classes that timm's names, or counts."""
    names = root.get("label_names")
    if not names:
        return {"num_labels": classes}
    described = root.get("label_descriptions", {})
    return {"id2label": {str(index): str(described.get(name, name)) for index, name in enumerate(names)}}


def _tensors(config: Mapping[str, Any], shapes: Shapes) -> dict[str, TensorOrigin]:
    width, found = config["hidden_size"], {REST[key]: TensorOrigin(key) for key in shapes if key in REST}
    for key in shapes:
        if (fused := QKV.fullmatch(key)) is not None:
            for index, name in enumerate(("query", "key", "value")):
                target = f"vit.encoder.layer.{fused[1]}.attention.attention.{name}.{fused[2]}"
                found[target] = TensorOrigin(key, rows=(index * width, (index + 1) * width))
        elif (own := IN_BLOCK.fullmatch(key)) is not None:
            found[f"vit.encoder.layer.{own[1]}.{BLOCK[own[2]]}.{own[3]}"] = TensorOrigin(key)
    return found


def _files(root: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {"preprocessor_config.json": prepared(root, config["image_size"], SILENT)}


def prepared(root: Mapping[str, Any], size: Any, silent: Mapping[str, Any]) -> dict[str, Any]:
    """How timm prepares pictures for an answer: the shorter side to the size over `crop_pct`, and the middle of it.

    size  a side in pixels, or (height, width);  silent  what holds where its `pretrained_cfg` says nothing
    """
    stated = {**silent, **{key: value for key, value in root.get("pretrained_cfg", {}).items() if value is not None}}
    height, width = (size, size) if isinstance(size, int) else size
    sides = [int(side / stated["crop_pct"]) for side in (height, width)]
    squash = stated["crop_mode"] == "squash" or height != width
    if stated["crop_mode"] not in ("squash", "center") or (height != width and stated["crop_mode"] != "squash"):
        raise ValueError(f"pictures of {height} x {width} with crop_mode: {stated['crop_mode']} are not prepared here")
    if stated["interpolation"] not in FILTERS:
        raise ValueError(f"pretrained_cfg has interpolation: {stated['interpolation']!r}, wanted one of {', '.join(FILTERS)}")
    return {
        "image_processor_type": "ViTImageProcessor", "do_resize": True, "resample": FILTERS[stated["interpolation"]],
        "size": {"height": sides[0], "width": sides[1]} if squash else {"shortest_edge": sides[0]},
        "do_center_crop": True, "crop_size": {"height": height, "width": width}, "crop_middle": "even",
        "image_mean": list(stated["mean"]), "image_std": list(stated["std"]), "do_convert_rgb": False,
    }  # fmt: skip


LAYOUT = LayoutCard("timm's ViT", _knows, _config, _tensors, _files)
