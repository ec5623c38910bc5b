"""CLIP as its authors and open_clip keep it: files of tensors, with or without open_clip's config beside them.

Source: `clip/model.py` of OpenAI (its sizes follow from shapes, heads are 64 wide, GELU is the quick one), and `CLIPVisionCfg`,
`CLIPTextCfg` and `image_transform` of open_clip 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from modelgraft.plugin import LayoutCard, TensorOrigin
from modelgraft_plugins.families._shared import CLIP_MEAN, CLIP_STD
from modelgraft_plugins.official_clip import PROJECTIONS, TEXT, VISION, Shapes, placed
from modelgraft_plugins.stated import REMARKS, Table, tower_table

HEAD = 64  # numbers in a head of every model of OpenAI, and of open_clip's pictures where its config is silent
FILTERS = {"bilinear": 2, "bicubic": 3}  # word of open_clip -> number of PIL
IDLE = ("input_resolution", "context_length", "vocab_size", "attn_mask")  # of OpenAI's archives: three numbers, and a fixed mask
RESIDUAL = "visual.layer1.0.conv1.weight"  # a tower that is a residual network
MARKS = ("token_embedding.weight", "positional_embedding", "ln_final.weight", "text_projection", "visual.conv1.weight")

# Words of open_clip. Those of a list do nothing at these values; at others they would make another model of it.
_BOTH: Mapping[str, tuple[Any, ...]] = {
    "ls_init_value": (), "final_ln_after_pool": (False,), "output_tokens": (False,), "act_kwargs": ({},), "norm_kwargs": ({},),
    "block_type": (), "qk_norm": (False,), "scaled_cosine_attn": (False,), "scale_heads": (False,), "scale_attn_inner": (False,),
    "scale_attn": (False,), "scale_fc": (False,), "mlp_ratio": (4, 4.0),
}  # fmt: skip
EYE = Table(
    "open_clip_config.json",
    frozenset({"layers", "width", "head_width", "patch_size", "image_size", "mlp_ratio"}),
    frozenset({"patch_dropout", "timm_drop", "timm_drop_path"}),  # of training
    {**_BOTH, "attentional_pool": (False,), "no_ln_pre": (False,), "pos_embed_type": ("learnable",), "pool_type": ("tok",)},
)
READER = Table(
    "open_clip_config.json",
    frozenset({"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"}),
    frozenset({"hf_tokenizer_name", "tokenizer_kwargs", "pad_id"}),  # of who cuts the texts; what pads stands behind the end
    {
        **_BOTH, "embed_cls": (False,), "no_causal_mask": (False,), "pool_type": ("argmax",), "proj_bias": (False,),
        "proj_type": ("linear",), "hf_model_pretrained": (True, False), "eos_id": (2,), "custom_text": (False,),
    },
)  # fmt: skip
WHOLE = tower_table({"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"}, {"init_logit_scale"}, {"custom_text": (False,)})
_ACTIVATION = (
    "nothing in it says which GELU it was trained with: the quick one is taken, as all CLIPs of OpenAI have it",
    "for one of open_clip put its open_clip_config.json beside it, or set `hidden_act: gelu` at both towers",
)


def _knows(root: Mapping[str, Any], shapes: Shapes) -> bool:
    words = _words(root)
    if root:
        return isinstance(words.get("vision_cfg"), dict) and "embed_dim" in words and "multimodal_cfg" not in words
    before, bare = _before(shapes), _bare(shapes)
    return all(key in bare for key in MARKS) and all(_placed(key, shapes, before) or _is_idle(key, before) for key in shapes)


def _words(root: Mapping[str, Any]) -> Mapping[str, Any]:
    """The words of the model in a config of open_clip, which has those of its pictures beside them, or in one that is them alone."""
    inner = root.get("model_cfg")
    return inner if isinstance(inner, dict) else root


def _before(shapes: Shapes) -> str:
    """What a training on several devices puts before every key."""
    return "module." if shapes and all(key.startswith("module.") for key in shapes) else ""


def _bare(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """The shapes without what some files put before every key, and before those of texts."""
    before = _before(shapes)
    return {key.removeprefix(before).removeprefix("text."): shape for key, shape in shapes.items()}


def _is_idle(key: str, before: str) -> bool:
    return key.removeprefix(before) in IDLE


def _placed(key: str, shapes: Shapes, before: str) -> dict[str, TensorOrigin]:
    """Where a tensor goes; {}: nowhere."""
    own = key.removeprefix(before)
    if own.startswith("visual.") and before + RESIDUAL in shapes:
        inside = own.removeprefix("visual.")
        if inside.startswith("attnpool.c_proj."):
            return {f"visual_projection.{inside.removeprefix('attnpool.c_proj.')}": TensorOrigin(key)}
        return {f"vision_model.{inside}": TensorOrigin(key)} if inside.startswith(_TOWER) else {}
    if own == "logit_scale":
        return {own: TensorOrigin(key)}
    texts = before + "text." if own.startswith("text.") else before  # a tower of texts that is a module of its own
    return placed(key, shapes[key], {**VISION, **TEXT, **PROJECTIONS}, before=texts)


_TOWER = ("conv1.", "conv2.", "conv3.", "bn1.", "bn2.", "bn3.", "layer1.", "layer2.", "layer3.", "layer4.", "attnpool.")


def _config(root: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    """The config of transformers, by the words of open_clip, or by the shapes of the tensors."""
    words = _words(root)
    if root:
        _refuse(words, WHOLE, "model")
    bare = _bare(shapes)
    wide = words["embed_dim"] if words else bare["text_projection"][1]
    quick = words.get("quick_gelu", "model_cfg" not in root)
    eye = _eye_of_words(words["vision_cfg"]) if words else _eye_of_shapes(bare)
    text = _text_of_words(words.get("text_cfg", {})) if words else _text_of_shapes(bare)
    act = {"hidden_act": "quick_gelu" if quick else "gelu"}
    silent = not root and not any(key in bare for key in IDLE)
    residual = eye["model_type"] == "clip_resnet"
    return {
        "model_type": "clip", "projection_dim": wide, **({"visual_projection_bias": True} if residual else {}),
        "vision_config": eye if residual else {**eye, **act, "projection_dim": wide},
        "text_config": {**text, **act, "projection_dim": wide},
        **({REMARKS: [list(_ACTIVATION)]} if silent else {}),
    }  # fmt: skip


def _refuse(words: Mapping[str, Any], table: Table, which: str) -> None:
    over = table.over(words)
    if over:
        raise ValueError(f"the {which} of CLIP here has no {', '.join(f'{key}: {value!r}' for key, value in sorted(over.items()))}")


def _eye_of_words(words: Mapping[str, Any]) -> dict[str, Any]:
    _refuse(words, EYE, "tower of pictures")
    layers, width, head = words.get("layers", 12), words.get("width", 768), words.get("head_width", HEAD)
    size = words.get("image_size", 224)
    side = size[0] if isinstance(size, list | tuple) and len(set(size)) == 1 else size
    if not isinstance(side, int):
        raise ValueError(f"its pictures are {size}, and here those of CLIP are squares")  # noqa: TRY004 as all that is not served
    if isinstance(layers, list | tuple):
        return {"model_type": "clip_resnet", "layers": list(layers), "width": width, "heads": width * 32 // head, "input_resolution": side}
    return {
        "model_type": "clip_vision_model", "hidden_size": width, "intermediate_size": int(width * words.get("mlp_ratio", 4)),
        "num_hidden_layers": layers, "num_attention_heads": width // head, "image_size": side, "patch_size": words.get("patch_size", 16),
        "layer_norm_eps": 1e-5,
    }  # fmt: skip


def _eye_of_shapes(shapes: Shapes) -> dict[str, Any]:
    side = math.isqrt(shapes.get("visual.positional_embedding", shapes.get("visual.attnpool.positional_embedding", (2,)))[0] - 1)
    if RESIDUAL in shapes:
        width = shapes[RESIDUAL][0]
        blocks = [len({key.split(".")[2] for key in shapes if key.startswith(f"visual.layer{stage}.")}) for stage in (1, 2, 3, 4)]
        heads = _heads(width * 32)
        return {"model_type": "clip_resnet", "layers": blocks, "width": width, "heads": heads, "input_resolution": side * 32}
    width, _, patch, _ = shapes["visual.conv1.weight"]
    return {
        "model_type": "clip_vision_model", "hidden_size": width,
        "intermediate_size": shapes["visual.transformer.resblocks.0.mlp.c_fc.weight"][0],
        "num_hidden_layers": _count(shapes, "visual.transformer.resblocks."), "num_attention_heads": _heads(width),
        "image_size": side * patch, "patch_size": patch, "layer_norm_eps": 1e-5,
    }  # fmt: skip


def _text_of_words(words: Mapping[str, Any]) -> dict[str, Any]:
    _refuse(words, READER, "tower of texts")
    width = words.get("width", 512)
    return {
        "model_type": "clip_text_model", "hidden_size": width, "intermediate_size": int(width * words.get("mlp_ratio", 4)),
        "num_hidden_layers": words.get("layers", 12), "num_attention_heads": words.get("heads", 8),
        "vocab_size": words.get("vocab_size", 49408), "max_position_embeddings": words.get("context_length", 77),
        "layer_norm_eps": 1e-5, "eos_token_id": HIGHEST,
    }  # fmt: skip


def _text_of_shapes(shapes: Shapes) -> dict[str, Any]:
    vocabulary, width = shapes["token_embedding.weight"]
    return {
        "model_type": "clip_text_model", "hidden_size": width, "intermediate_size": shapes["transformer.resblocks.0.mlp.c_fc.weight"][0],
        "num_hidden_layers": _count(shapes, "transformer.resblocks."), "num_attention_heads": _heads(width), "vocab_size": vocabulary,
        "max_position_embeddings": shapes["positional_embedding"][0], "layer_norm_eps": 1e-5, "eos_token_id": HIGHEST,
    }  # fmt: skip


HIGHEST = 2  # what transformers takes for: pool at the highest id, as this code does


def _count(shapes: Shapes, start: str) -> int:
    return len({key.removeprefix(start).split(".")[0] for key in shapes if key.startswith(start)})


def _heads(width: int) -> int:
    """Heads by the rule of OpenAI's code; 0 where they cannot be 64 wide, which no tower can have: then `with` must say them."""
    return width // HEAD if width % HEAD == 0 else 0


def _tensors(_config: Mapping[str, Any], shapes: Shapes) -> dict[str, TensorOrigin]:
    before = _before(shapes)
    return {name: taken for key in shapes for name, taken in _placed(key, shapes, before).items()}


def _files(root: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """How pictures are prepared: the shorter side to the size, its middle, and nothing behind what is transparent."""
    eye = config["vision_config"]
    side, stated = eye.get("image_size", eye.get("input_resolution")), root.get("preprocess_cfg", {})
    found = {"interpolation": "bicubic", "resize_mode": "shortest", "mean": CLIP_MEAN, "std": CLIP_STD, "mode": "RGB", **stated}
    if found["interpolation"] not in FILTERS or found["resize_mode"] not in ("shortest", "squash") or found["mode"] != "RGB":
        named = ", ".join(f"{key}: {found[key]!r}" for key in ("interpolation", "resize_mode", "mode"))
        raise ValueError(
            f"its preprocess_cfg has {named}; pictures are prepared here with bicubic or bilinear, shortest or squash, and RGB"
        )
    squash = found["resize_mode"] == "squash"
    square = {"height": side, "width": side}
    prepared = {
        "image_processor_type": "CLIPImageProcessor", "do_resize": True, "resample": FILTERS[found["interpolation"]],
        "size": square if squash else {"shortest_edge": side}, "do_center_crop": not squash, "crop_size": square, "crop_middle": "even",
        "image_mean": list(found["mean"]), "image_std": list(found["std"]), "do_convert_rgb": False,
    }  # fmt: skip
    return {"preprocessor_config.json": prepared, "tokenizer_config.json": {"tokenizer_class": "CLIPTokenizer"}}


LAYOUT = LayoutCard(
    "OpenAI's code and open_clip",
    knows=_knows,
    config=_config,
    tensors=_tensors,
    files=_files,
    idle=(*IDLE, *(f"module.{name}" for name in IDLE)),
)
