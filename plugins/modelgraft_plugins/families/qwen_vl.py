"""Qwen of 2023 and Qwen-VL: files of their own code, seen as a Qwen2 and what sees beside it (arXiv 2308.12966).

The language model is a Qwen2 whose queries, keys and values are one matrix, and whose gate is the second of two (`mlp.w2`). Above
`seq_length` tokens the published code scales positions and queries (dynamic NTK, log-n), which no Qwen2 does: that is the longest context
here. What sees keeps its names. Source: `modeling_qwen.py`, `visual.py`, `configuration_qwen.py` on the hub.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from modelgraft.plugin import FamilyCard, LayoutCard, PartCard, TensorOrigin, WholeCard
from modelgraft_plugins.families._shared import BICUBIC, CLIP_MEAN, CLIP_STD
from modelgraft_plugins.stated import ABOUT, FORMER_GENERATION, TRAINING, Table

Shapes = Mapping[str, tuple[int, ...]]
Facts = Mapping[str, Any]
CODE, WHOLE, EYE = "qwen", "qwen_vl", "qwen_vl_visual"  # model_type: of its code; and as seen here a whole, and what sees alone
VISUAL = "transformer.visual."
END = 151_643  # <|endoftext|>, by which its texts end where no generation_config.json says so
HEAD, EYE_HEADS, SIDE = 128, 16, 448  # of every published file: width of a head, heads of the eye, pixels of a side
SILENT: Mapping[str, Any] = {  # configuration_qwen.py
    "vocab_size": 151_936, "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "kv_channels": 128,
    "intermediate_size": 22_016, "layer_norm_epsilon": 1e-6, "rotary_emb_base": 10_000, "seq_length": 2048,
    "max_position_embeddings": 8192, "tie_word_embeddings": False, "use_dynamic_ntk": True, "use_logn_attn": True,
}  # fmt: skip
SILENT_EYE: Mapping[str, Any] = {"image_size": SIDE, "patch_size": 14, "width": 1664, "layers": 48, "heads": EYE_HEADS, "mlp_ratio": 4.9231}
WORDS = Table(
    "config.json",
    frozenset({*SILENT, "model_type", "visual", "quantization_config", "eos_token_id"}),
    ABOUT | TRAINING | FORMER_GENERATION | {
        "attn_dropout_prob", "emb_dropout_prob", "bf16", "fp16", "fp32", "use_flash_attn", "onnx_safe", "tokenizer_type",
        "image_start_id",  # where pictures stand says their placeholder
        "use_cache_quantization", "use_cache_kernel", "softmax_in_fp32",
    },
    {"no_bias": (True,), "rotary_pct": (1, 1.0), "scale_attn_weights": (True,)},
)  # fmt: skip
EYE_WORDS = Table(
    "config.json", frozenset({*SILENT_EYE, "n_queries", "output_dim", "resampler_heads", "model_type"}), ABOUT | {"image_start_id"}
)

# name in a layer of its code -> names in a layer of Qwen2, of which several take their shares of the rows
LAYER: Mapping[str, tuple[str, ...]] = {
    "ln_1": ("input_layernorm",), "ln_2": ("post_attention_layernorm",), "attn.c_proj": ("self_attn.o_proj",),
    "attn.c_attn": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "mlp.w1": ("mlp.up_proj",), "mlp.w2": ("mlp.gate_proj",),
    "mlp.c_proj": ("mlp.down_proj",),
}  # fmt: skip
REST: Mapping[str, str] = {
    "transformer.wte.weight": "model.embed_tokens.weight", "transformer.ln_f.weight": "model.norm.weight",
    "lm_head.weight": "lm_head.weight",
}  # fmt: skip
IN_LAYER = re.compile(rf"transformer\.h\.(\d+)\.({'|'.join(map(re.escape, LAYER))})\.(weight|bias)")
IN_EYE = re.compile(
    r"conv1\.weight|positional_embedding|ln_(?:pre|post)\.(?:weight|bias)|proj|transformer\.resblocks\.\d+\..+|attn_pool\..+"
)
MARKS = ("attn_pool.query", "attn_pool.pos_embed", "conv1.weight", "positional_embedding", "transformer.resblocks.0.attn.in_proj.weight")


def _knows(root: Facts, shapes: Shapes) -> bool:
    kind = root.get("model_type")
    if kind is not None:
        return kind in (CODE, EYE) and (not shapes or _is_eye(shapes) or "transformer.wte.weight" in shapes)
    return bool(shapes) and all(_is_placed(key) for key in shapes) and (_is_eye(shapes) or "transformer.wte.weight" in shapes)


def _is_eye(shapes: Shapes) -> bool:
    return all(mark in shapes for mark in MARKS)


def _is_placed(key: str) -> bool:
    return key in REST or IN_LAYER.fullmatch(key) is not None or IN_EYE.fullmatch(key.removeprefix(VISUAL)) is not None


def _config(root: Facts, shapes: Shapes) -> dict[str, Any]:
    """A Qwen2, what sees, or both, by what the config says; where there is none, by the shapes and what all published files have."""
    if _is_eye(shapes) or root.get("model_type") == EYE:
        return {"model_type": EYE, **_eye(root or _eye_of_shapes(shapes), shapes)}
    _refuse(WORDS, root, "model")
    stated = {**SILENT, **(root or _language_of_shapes(shapes))}
    seen = {key.removeprefix(VISUAL): shape for key, shape in shapes.items() if key.startswith(VISUAL)}
    visual = stated.get("visual") if root else _eye_of_shapes(seen) if seen else None
    if visual is None:
        return _language(stated, root)
    if shapes and not seen:
        raise ValueError(f"its config states what sees (visual), and no tensor of it begins with {VISUAL}")
    more = {key: root[key] for key in ("quantization_config",) if key in root}
    return {
        "model_type": WHOLE, "tie_word_embeddings": stated["tie_word_embeddings"], **more,
        "vision_config": {"model_type": EYE, **_eye({"output_dim": stated["hidden_size"], **visual}, seen)},
        "text_config": _language(stated, {}),
    }  # fmt: skip


def _refuse(table: Table, words: Facts, what: str) -> None:
    if refused := table.over(words):
        raise ValueError(f"there is no such {what} here with {', '.join(f'{key}: {value!r}' for key, value in sorted(refused.items()))}")


def _language(stated: Facts, root: Facts) -> dict[str, Any]:
    """The config of the Qwen2 that it is."""
    width, heads = stated["hidden_size"], stated["num_attention_heads"]
    scales = stated["use_dynamic_ntk"] or stated["use_logn_attn"]
    own = {"head_dim": stated["kv_channels"]} if stated["kv_channels"] * heads != width else {}
    ends = {"eos_token_id": stated.get("eos_token_id", END)} if stated["vocab_size"] > END or "eos_token_id" in stated else {}
    more = {key: root[key] for key in ("quantization_config", "torch_dtype", "dtype") if key in root}
    return {
        "model_type": "qwen2", "vocab_size": stated["vocab_size"], "hidden_size": width, "num_attention_heads": heads, **own,
        "num_key_value_heads": heads, "num_hidden_layers": stated["num_hidden_layers"],
        "intermediate_size": stated["intermediate_size"] // 2,  # it states that of gate and value together
        "hidden_act": "silu", "rms_norm_eps": stated["layer_norm_epsilon"], "rope_theta": float(stated["rotary_emb_base"]),
        "max_position_embeddings": stated["seq_length"] if scales else stated["max_position_embeddings"],
        "tie_word_embeddings": stated["tie_word_embeddings"], **ends, **more,
    }  # fmt: skip


def _eye(words: Facts, shapes: Shapes) -> dict[str, Any]:
    """The words of what sees, as the parts of the plugin `qwenvl` read them. Raises ValueError where the tensors have other sizes."""
    _refuse(EYE_WORDS, words, "eye")
    stated = {**SILENT_EYE, "n_queries": 256, **words}
    read = ("image_size", "patch_size", "width", "layers", "heads", "n_queries", "output_dim", "resampler_heads")
    found: dict[str, Any] = {key: stated[key] for key in read if key in stated}
    found["mlp_width"] = int(stated["width"] * stated["mlp_ratio"])  # rounded down, as its code does
    if shapes:
        there = {"mlp_width": shapes["transformer.resblocks.0.mlp.c_fc.weight"][0], **_eye_of_shapes(shapes)}
        compared = ("patch_size", "width", "layers", "n_queries", "output_dim", "mlp_width")
        other = [key for key in compared if key in found and found[key] != there[key]]
        if other:
            raise ValueError(f"its config says {other[0]}: {found[other[0]]}, its tensors have {there[other[0]]}")
    return found


def _eye_of_shapes(shapes: Shapes) -> dict[str, Any]:
    lacking = [mark for mark in MARKS if mark not in shapes]
    if lacking:
        raise ValueError(f"it has no tensor {lacking[0]}")
    width, _, patch, _ = shapes["conv1.weight"]
    queries, out = shapes["attn_pool.query"]
    layers = len({key.split(".")[2] for key in shapes if key.startswith("transformer.resblocks.")})
    wide = shapes["transformer.resblocks.0.mlp.c_fc.weight"][0]
    return {"patch_size": patch, "width": width, "layers": layers, "n_queries": queries, "output_dim": out, "mlp_ratio": wide / width}


def _language_of_shapes(shapes: Shapes) -> dict[str, Any]:
    rows, width = shapes["transformer.wte.weight"]
    layers = {match[1] for key in shapes if (match := IN_LAYER.fullmatch(key)) is not None}
    return {
        "vocab_size": rows, "hidden_size": width, "num_hidden_layers": len(layers), "num_attention_heads": max(width // HEAD, 1),
        "intermediate_size": 2 * shapes["transformer.h.0.mlp.w1.weight"][0],
    }  # fmt: skip


def _tensors(config: Facts, shapes: Shapes) -> dict[str, TensorOrigin]:
    if config["model_type"] == EYE:
        return {key: TensorOrigin(key) for key in shapes if IN_EYE.fullmatch(key) is not None}
    inside = "language_model." if config["model_type"] == WHOLE else ""
    found = {f"{inside}{REST[key]}": TensorOrigin(key) for key in shapes if key in REST}
    for key, shape in shapes.items():
        if key.startswith(VISUAL) and inside and IN_EYE.fullmatch(rest := key.removeprefix(VISUAL)) is not None:
            found[f"visual.{rest}"] = TensorOrigin(key)
        elif (match := IN_LAYER.fullmatch(key)) is not None:
            names, rows = LAYER[match[2]], shape[0] // len(LAYER[match[2]])
            for at, name in enumerate(names):
                part = (at * rows, (at + 1) * rows) if len(names) > 1 else None
                found[f"{inside}model.layers.{match[1]}.{name}.{match[3]}"] = TensorOrigin(key, rows=part)
    return found


def _files(_root: Facts, config: Facts) -> dict[str, Facts]:
    """Its code resizes every picture to a square, whatever its shape, and norms it as CLIP's are."""
    eye = config if config["model_type"] == EYE else config.get("vision_config")
    if eye is None:
        return {}
    side = {"height": eye["image_size"], "width": eye["image_size"]}
    prepared = {
        "image_processor_type": "ViTImageProcessor", "do_resize": True, "size": side, "resample": BICUBIC, "do_center_crop": False,
        "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": list(CLIP_MEAN), "image_std": list(CLIP_STD),
        "do_convert_rgb": True,
    }  # fmt: skip
    return {"preprocessor_config.json": prepared}


CARD = FamilyCard(
    "qwen_vl",
    "a Qwen of 2023 that sees pictures, and says where things are on them by boxes",
    wholes={
        WHOLE: WholeCard(
            parts={
                "visual": PartCard("vision_config", EYE),
                "language_model": PartCard("text_config", "qwen2", language="always"),
            },
            tied=False,
        ),
    },
    graphs={WHOLE: "qwen_vl"},
    layouts=(LayoutCard("the code of Qwen", _knows, _config, _tensors, _files, idle=("transformer.rotary_emb.",)),),
)
