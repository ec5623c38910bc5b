"""LLaVA as its authors save it: a LLaMA that holds the projector, and of later versions perhaps the eye; or a projector alone.

Files of 2023 hold no eye: it is the CLIP that `mm_vision_tower` names. The files of some versions (`delta`) are to be added to those of a
LLaMA first, which no key of theirs says. Source: `llava_arch.py`, `multimodal_projector/builder.py`, `clip_encoder.py`, `train.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from modelgraft.plugin import LayoutCard, TensorOrigin
from modelgraft_plugins.families._shared import BICUBIC, CLIP_MEAN, CLIP_STD
from modelgraft_plugins.families.fromage import CLIPS
from modelgraft_plugins.stated import ABOUT, FORMER_GENERATION, TRAINING, Table

Shapes = Mapping[str, tuple[int, ...]]
Facts = Mapping[str, Any]
KINDS = ("llava", "llava_llama")
PROJECTOR, EYE = "model.mm_projector.", "model.vision_tower.vision_tower."
WORDS_OF_IT = {"mm_projector_type", "mm_vision_tower", "mm_hidden_size", "projector_type"}  # no config of Hugging Face has one of these
HEAD = 128  # width of a head of every LLaMA
LANGUAGE = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "hidden_act", "max_position_embeddings", "rms_norm_eps", "rope_theta", "rope_scaling", "rope_parameters", "attention_bias", "mlp_bias",
    "pad_token_id", "bos_token_id", "eos_token_id", "torch_dtype", "dtype", "pretraining_tp", "quantization_config",
)  # fmt: skip
SILENT: Mapping[str, Any] = {  # LLaMA 7B
    "vocab_size": 32_000, "hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32, "num_attention_heads": 32,
    "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "hidden_act": "silu", "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
WORDS = Table(
    "config.json",
    frozenset({
        *LANGUAGE, *WORDS_OF_IT, "model_type", "mm_vision_select_layer", "mm_vision_select_feature", "image_aspect_ratio", "vision_config",
        "vision_width", "max_length",
    }),
    ABOUT | TRAINING | FORMER_GENERATION | {
        "mm_use_im_start_end", "mm_use_im_patch_token",  # what stands around a picture says the prompt
        "freeze_mm_mlp_adapter", "tune_mm_mlp_adapter", "freeze_mm_vision_resampler", "tune_mm_vision_resampler", "use_mm_proj",
        "unfreeze_mm_vision_tower", "mm_projector_lr", "mm_vision_tower_lr", "tokenizer_padding_side", "tokenizer_model_max_length",
        "mm_resampler_type", "retriever_type", "sep_image_conv_front", "image_crop_resolution", "image_split_resolution",
        "max_sequence_length", "tie_word_embeddings",
    },
    {"mm_patch_merge_type": ("flat",), "image_grid_pinpoints": ([],)},
)  # fmt: skip
LAYERS = {"weight": "weight", "bias": "bias", "0.weight": "linear_1.weight", "0.bias": "linear_1.bias", "2.weight": "linear_2.weight",
          "2.bias": "linear_2.bias"}  # fmt: skip
IN_LANGUAGE = re.compile(r"model\.(?:embed_tokens|norm|layers\.\d+\..+)\..*|model\.(?:embed_tokens|norm)\.weight|lm_head\.weight")


def _knows(root: Facts, shapes: Shapes) -> bool:
    kind = root.get("model_type")
    if kind is not None:
        return kind in KINDS and (bool(WORDS_OF_IT & root.keys()) or any(key.startswith(PROJECTOR) for key in shapes))
    return any(key.startswith(PROJECTOR) for key in shapes) and all(_is_placed(key) for key in shapes)


def _is_placed(key: str) -> bool:
    if key.startswith(PROJECTOR):
        return key.removeprefix(PROJECTOR) in LAYERS
    return key.startswith(EYE) or IN_LANGUAGE.fullmatch(key) is not None


def _config(root: Facts, shapes: Shapes) -> dict[str, Any]:
    """The config of transformers, by what is stated, and by the shapes where nothing is."""
    if refused := WORDS.over(root):
        raise ValueError(f"there is no LLaVA here with {', '.join(f'{key}: {value!r}' for key, value in sorted(refused.items()))}")
    if (aspect := root.get("image_aspect_ratio", "square")) not in ("square", "pad"):
        raise ValueError(f"it has image_aspect_ratio: {aspect!r}, which cuts pictures: take the checkpoint in the layout of transformers")
    language = {**SILENT, **_of_shapes(shapes), **{key: root[key] for key in LANGUAGE if key in root}}
    feature = root.get("mm_vision_select_feature", "patch")
    if feature not in ("patch", "cls_patch"):
        raise ValueError(f"it has mm_vision_select_feature: {feature!r}, wanted patch or cls_patch")
    eye = _eye(root, shapes)
    return {
        "model_type": "llava", "tie_word_embeddings": False, "mm_projector_type": _projector(root, shapes), "image_aspect_ratio": aspect,
        "vision_config": eye, "text_config": {"model_type": "llama", "tie_word_embeddings": False, **language},
        "vision_feature_layer": root.get("mm_vision_select_layer", -2),
        "vision_feature_select_strategy": "default" if feature == "patch" else "full", "projector_hidden_act": "gelu",
    }  # fmt: skip


def _projector(root: Facts, shapes: Shapes) -> str:
    """One linear layer, or two: by the tensors, which must be as it is stated."""
    stated = root.get("mm_projector_type", root.get("projector_type"))
    found = None
    if shapes:
        found = "linear" if f"{PROJECTOR}weight" in shapes else "mlp2x_gelu" if f"{PROJECTOR}2.weight" in shapes else None
        if found is None:
            raise ValueError(f"it has no tensors of a projector with one layer or two, whose keys begin with {PROJECTOR}")
    kind = stated or found or "linear"
    if kind not in ("linear", "mlp2x_gelu"):
        raise ValueError(f"it has mm_projector_type: {kind!r}, wanted linear or mlp2x_gelu")
    if found not in (None, kind):
        raise ValueError(f"its config says mm_projector_type: {kind}, its tensors are those of {found}")
    return str(kind)


def _eye(root: Facts, shapes: Shapes) -> dict[str, Any]:
    """The config of the CLIP that it names; where it names another, what is stated in Hugging Face's words, or known by the projector."""
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size")
    known = CLIPS.get(str(root.get("mm_vision_tower", "")).rpartition("/")[2])
    sizes = dict(zip(names, known, strict=True)) if known else {}
    first = shapes.get(f"{PROJECTOR}0.weight", shapes.get(f"{PROJECTOR}weight"))
    width = root.get("mm_hidden_size", root.get("vision_width", first[1] if first else None))
    if width is not None and not root.get("vision_config"):
        if sizes and sizes["hidden_size"] != width:
            raise ValueError(
                f"its mm_vision_tower, {root['mm_vision_tower']}, is {sizes['hidden_size']} wide, and its projector reads {width}"
            )
        sizes["hidden_size"] = width
    return {"model_type": "clip_vision_model", "hidden_act": "quick_gelu", **sizes, **root.get("vision_config", {})}


def _of_shapes(shapes: Shapes) -> dict[str, Any]:
    """The sizes of the language model, where it is there; the width of one that is not there, by the projector."""
    table = shapes.get("model.embed_tokens.weight")
    if table is None:
        rows = shapes.get(f"{PROJECTOR}2.weight", shapes.get(f"{PROJECTOR}weight"))
        return {"hidden_size": rows[0]} if rows else {}
    found = {"vocab_size": table[0], "hidden_size": table[1]}
    layers = {key.split(".")[2] for key in shapes if key.startswith("model.layers.")}
    if layers and (gate := shapes.get("model.layers.0.mlp.gate_proj.weight")) is not None:
        found |= {"num_hidden_layers": len(layers), "intermediate_size": gate[0], "num_attention_heads": max(table[1] // HEAD, 1)}
    return found


def _tensors(_config: Facts, shapes: Shapes) -> dict[str, TensorOrigin]:
    found: dict[str, TensorOrigin] = {}
    for key in shapes:
        if key.startswith(PROJECTOR) and (name := LAYERS.get(key.removeprefix(PROJECTOR))) is not None:
            found[f"multi_modal_projector.{name}"] = TensorOrigin(key)
        elif key.startswith(EYE):
            found[f"vision_tower.{key.removeprefix(EYE)}"] = TensorOrigin(key)
        elif IN_LANGUAGE.fullmatch(key) is not None:
            found[f"language_model.{key}"] = TensorOrigin(key)
    return found


def _files(_root: Facts, config: Facts) -> dict[str, Facts]:
    """How its code prepares pictures: as CLIP, and since 1.5 filled up to a square before."""
    side = config["vision_config"].get("image_size")
    if side is None:
        return {}
    prepared = {
        "image_processor_type": "LlavaImageProcessor", "do_pad": config["image_aspect_ratio"] == "pad", "do_resize": True,
        "size": {"shortest_edge": side}, "resample": BICUBIC, "do_center_crop": True, "crop_size": {"height": side, "width": side},
        "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": list(CLIP_MEAN), "image_std": list(CLIP_STD),
        "do_convert_rgb": True,
    }  # fmt: skip
    return {"preprocessor_config.json": prepared}


LAYOUT = LayoutCard("the code of LLaVA", _knows, _config, _tensors, _files)
