"""FROMAGe: pictures in and out of a frozen OPT, by linear maps and a token that asks for one (arXiv 2301.13823).

Its files hold what was trained: `pretrained_ckpt.pth.tar` with `model_args.json` beside it. While it is trained the frozen models lie
in them too, a CLIP and an OPT of transformers. Source: `models.py`, `main.py` and `prune_model_ckpt.py` of its code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from modelgraft.plugin import FamilyCard, LayoutCard, PartCard, TensorOrigin, WholeCard
from modelgraft_plugins.families._shared import CLIP_MEAN, CLIP_STD
from modelgraft_plugins.stated import Table

Shapes = Mapping[str, tuple[int, ...]]
ADDED = 2  # tokens that its code adds to those of OPT: one for pictures, and [RET]
TOKENS = 50_265  # of every OPT, whose tables are filled up to 50,272 rows
MARKS = ("visual_embeddings.weight", "visual_fc.weight", "text_hidden_fcs.0.0.weight")
TRAINED = re.compile(r"(?:visual_embeddings|visual_fc|text_hidden_fcs\.\d+\.0)\.(?:weight|bias)|logit_scale")
# opt_version -> width, of the embeddings, of the feed-forward layers, layers, heads: the published models (arXiv 2205.01068, table 1)
OPTS: Mapping[str, tuple[int, int, int, int, int]] = {
    "opt-125m": (768, 768, 3072, 12, 12), "opt-350m": (1024, 512, 4096, 24, 16), "opt-1.3b": (2048, 2048, 8192, 24, 32),
    "opt-2.7b": (2560, 2560, 10240, 32, 32), "opt-6.7b": (4096, 4096, 16384, 32, 32), "opt-13b": (5120, 5120, 20480, 40, 40),
    "opt-30b": (7168, 7168, 28672, 48, 56), "opt-66b": (9216, 9216, 36864, 64, 72),
}  # fmt: skip
# visual_encoder -> width, of the feed-forward layers, layers, heads, side of a picture, of a patch
CLIPS: Mapping[str, tuple[int, int, int, int, int, int]] = {
    "clip-vit-base-patch32": (768, 3072, 12, 12, 224, 32), "clip-vit-base-patch16": (768, 3072, 12, 12, 224, 16),
    "clip-vit-large-patch14": (1024, 4096, 24, 16, 224, 14), "clip-vit-large-patch14-336": (1024, 4096, 24, 16, 336, 14),
}  # fmt: skip
WORDS = Table(
    "model_args.json",
    frozenset({
        "model_type", "opt_version", "visual_encoder", "n_visual_tokens", "shared_emb_dim", "text_emb_layers", "retrieval_token_idx",
        "vocab_size_before_resize", "hidden_size", "ffn_dim", "num_hidden_layers", "num_attention_heads", "max_position_embeddings",
        "word_embed_proj_dim", "do_layer_norm_before", "pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "ret_token_id",
        "vision", "input_prompt",
    }),
    frozenset({
        "task", "freeze_lm", "freeze_vm", "pretrained_visual", "image_embed_dropout_prob", "text_embed_dropout_prob",
        "add_input_to_ret",  # whether its training put input_prompt before captions to be matched too: with.prefix of a graph says it
    }),
    {
        "use_pooler": (True,), "append_retrieval_token": (True,), "num_appended_retrieval_tokens": (1,), "tunable_prompt_length": (0,),
        "use_image_embed_norm": (False,), "use_text_embed_layernorm": (False,),
    },
)  # fmt: skip


def _bare(shapes: Shapes) -> dict[str, str]:
    """Name without what the code and a training on several devices put before it -> key in the file."""
    return {key.removeprefix("module.").removeprefix("model."): key for key in shapes}


def _knows(root: Mapping[str, Any], shapes: Shapes) -> bool:
    if root.get("model_type", "fromage") != "fromage":
        return False
    return "n_visual_tokens" in root or all(mark in _bare(shapes) for mark in MARKS)


def _config(root: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    """What its parts read: sizes of what was trained, by the shapes where there are any, and configs of both frozen models."""
    refused = WORDS.over(root)
    if refused:
        raise ValueError(f"there is no FROMAGe here with {', '.join(f'{key}: {value!r}' for key, value in sorted(refused.items()))}")
    if shapes and (lacking := [mark for mark in MARKS if mark not in _bare(shapes)]):
        raise ValueError(f"it has no tensor {lacking[0]}")
    found = {**_stated(root), **_shaped(shapes)}
    unknown = [key for key in ("shared_emb_dim", "vision_width", "text_width", "n_visual_tokens") if found.get(key) is None]
    if unknown:
        raise ValueError(f"it does not say its {unknown[0]}, and no tensors do")
    _compare(root, found)
    return {"model_type": "fromage", **found, "vision_config": _eye(root, found), "text_config": _tongue(root, found, shapes)}


def _stated(root: Mapping[str, Any]) -> dict[str, Any]:
    opt, clip = OPTS.get(_short(root, "opt_version")), CLIPS.get(_short(root, "visual_encoder"))
    token = root.get("retrieval_token_idx", root.get("ret_token_id"))
    return {
        "n_visual_tokens": root.get("n_visual_tokens"),
        "shared_emb_dim": root.get("shared_emb_dim"),
        "text_width": root.get("word_embed_proj_dim", root.get("hidden_size", opt[1] if opt else None)),
        "vision_width": root.get("vision", {}).get("hidden_size", clip[0] if clip else None),
        "text_emb_layers": list(root.get("text_emb_layers", [-1])),
        **({"ret_token_id": token} if token is not None else {}),
        **({"input_prompt": root["input_prompt"]} if root.get("input_prompt") else {}),
    }


def _shaped(shapes: Shapes) -> dict[str, Any]:
    if not shapes:
        return {}
    keys = _bare(shapes)
    rows, wide = shapes[keys["visual_embeddings.weight"]]
    shared, width = shapes[keys["text_hidden_fcs.0.0.weight"]]
    table = next((shapes[keys[name]] for name in ("ret_input_embeddings.weight", "input_embeddings.weight") if name in keys), None)
    width = table[1] if table is not None else width
    return {"n_visual_tokens": rows // width, "shared_emb_dim": shared, "text_width": width, "vision_width": wide}


def _compare(root: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raise ValueError where the words state other sizes than the tensors have."""
    for key in ("n_visual_tokens", "shared_emb_dim"):
        if root.get(key) is not None and root[key] != found[key]:
            raise ValueError(f"model_args.json states {key}: {root[key]}, its tensors have {found[key]}")


def _short(root: Mapping[str, Any], key: str) -> str:
    return str(root.get(key, "")).rpartition("/")[2]


def _eye(root: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """The config of its CLIP."""
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size")
    known = CLIPS.get(_short(root, "visual_encoder"))
    sizes = dict(zip(names, known, strict=True)) if known else {"hidden_size": found["vision_width"]}
    return {"model_type": "clip_vision_model", "hidden_act": "quick_gelu", **sizes, **root.get("vision", {})}


def _tongue(root: Mapping[str, Any], found: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    """The config of its OPT, with the rows of both tokens that were added."""
    known, table = OPTS.get(_short(root, "opt_version")), shapes.get(_bare(shapes).get("input_embeddings.weight", ""))
    names = ("hidden_size", "word_embed_proj_dim", "ffn_dim", "num_hidden_layers", "num_attention_heads")
    sizes = dict(zip(names, known, strict=True)) if known else {}
    own = {key: root[key] for key in (*names, "max_position_embeddings", "do_layer_norm_before") if key in root}
    rows = root.get("vocab_size_before_resize", TOKENS) + ADDED
    small = known is not None and known[0] != known[1]  # OPT-350m, the one with norms behind its layers
    return {
        "model_type": "opt", "vocab_size": table[0] if table is not None else rows, "do_layer_norm_before": not small,
        "word_embed_proj_dim": found["text_width"], **sizes, **own,
        **{key: root.get(key, default) for key, default in (("pad_token_id", 1), ("bos_token_id", 2), ("eos_token_id", 2))},
    }  # fmt: skip


def _tensors(config: Mapping[str, Any], shapes: Shapes) -> dict[str, TensorOrigin]:
    found: dict[str, TensorOrigin] = {}
    keys = _bare(shapes)
    for name, key in keys.items():
        if TRAINED.fullmatch(name):
            found[name] = TensorOrigin(key)
        elif name.startswith("lm."):
            found[f"language_model.{name.removeprefix('lm.')}"] = TensorOrigin(key)
        elif name.startswith("visual_model."):
            found[f"vision_model.{name.removeprefix('visual_model.').removeprefix('vision_model.')}"] = TensorOrigin(key)
    table = keys.get("input_embeddings.weight")
    if table is not None and any(name.startswith("lm.") for name in keys):  # older files hold it twice more, under lm.
        found.setdefault("language_model.model.decoder.embed_tokens.weight", TensorOrigin(table))
    if "ret_input_embeddings.weight" in keys:
        found["ret_input_embeddings.weight"] = TensorOrigin(keys["ret_input_embeddings.weight"])
    elif table is not None:
        row = shapes[table][0] - 1  # it is the last of the tokens that are added
        row = min(config.get("ret_token_id", row), row)
        found["ret_input_embeddings.weight"] = TensorOrigin(table, rows=(row, row + 1))
    return found


def _files(_root: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Pictures are prepared as CLIP prepares them."""
    side = config["vision_config"].get("image_size", 224)
    prepared = {
        "image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side},
        "image_mean": list(CLIP_MEAN), "image_std": list(CLIP_STD),
    }  # fmt: skip
    return {"preprocessor_config.json": prepared}


IDLE = ("model.input_embeddings.", "module.model.input_embeddings.")  # the table of the OPT, of which one row was trained
PARTS = {
    "vision_model": PartCard("vision_config", "clip_vision_model"),
    "language_model": PartCard("text_config", "opt", language="always"),
}
CARD = FamilyCard(
    "fromage",
    "pictures in and out of a frozen language model, by linear maps and a token that asks for one",
    wholes={"fromage": WholeCard(parts=PARTS, pictures="CLIP", begin="text")},
    graphs={"fromage": "fromage/caption"},  # the others read an index of pictures, which no checkpoint has
    layouts=(LayoutCard("FROMAGe's code", _knows, _config, _tensors, _files, idle=IDLE),),
)
