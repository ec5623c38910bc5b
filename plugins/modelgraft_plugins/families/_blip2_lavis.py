"""BLIP-2 of the first stage as its authors save it: a file of what was trained, without the frozen eye.

Source: `Blip2Qformer` of LAVIS 1.0, and the keys of `blip2_pretrained.pth`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from modelgraft.plugin import LayoutCard, TensorOrigin
from modelgraft_plugins.stated import Table

Shapes = Mapping[str, tuple[int, ...]]
KIND = "blip2_qformer"  # what a config.json beside the file may call it: the module that it was made with
HEAD = 64  # numbers in a head of every published one
BERT, LAYER = "Qformer.bert.", "Qformer.bert.encoder.layer."
MARKS = ("query_tokens", "itm_head.weight", "vision_proj.weight", f"{BERT}embeddings.word_embeddings.weight", "ln_vision.weight")
NAMES = (  # how a key begins -> how it begins in the layout of transformers; the first that fits counts
    (f"{BERT}embeddings.LayerNorm.", "qformer.layernorm."), (f"{BERT}embeddings.", "embeddings."), (BERT, "qformer."),
    ("Qformer.cls.", "cls."), ("vision_proj.", "vision_projection."), ("text_proj.", "text_projection."), ("itm_head.", "itm_head."),
    ("ln_vision.", "ln_vision."), ("query_tokens", "query_tokens"), ("temp", "temp"),
)  # fmt: skip
IDLE = (f"{BERT}embeddings.position_ids",)
INNER = re.compile(r"\.(attention|crossattention)\.self\.")
WORDS = Table(
    "config.json",
    frozenset({
        "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings",
        "encoder_width", "cross_attention_freq", "num_query_tokens", "embed_dim", "layer_norm_eps", "pad_token_id", "sep_token_id",
        "dec_token_id",
    }),
    frozenset({"model_type", "cls_token_id"}),  # its place is taken by dec_token_id where a caption is written
)  # fmt: skip


def _knows(root: Mapping[str, Any], shapes: Shapes) -> bool:
    if root.get("model_type") == KIND:
        return True
    return not root and all(key in shapes for key in MARKS) and all(_placed(key) or key in IDLE for key in shapes)


def _placed(key: str) -> str:
    """Where a tensor goes; "": nowhere."""
    if key in IDLE:
        return ""
    found = next(((begins, ours) for begins, ours in NAMES if key.startswith(begins)), None)
    return INNER.sub(r".\1.attention.", found[1] + key.removeprefix(found[0])) if found is not None else ""


def _config(root: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    """The config of transformers: by the shapes of the tensors, and by the words beside them."""
    words = {key: value for key, value in root.items() if key != "model_type"}
    if refused := WORDS.over(words):
        raise ValueError(f"a BLIP-2 here has no {', '.join(f'{key}: {value!r}' for key, value in sorted(refused.items()))}")
    if not all(key in shapes for key in MARKS):
        raise ValueError(f"its sizes are read from its tensors, and it has none of the keys {', '.join(MARKS)}")
    width = shapes["query_tokens"][2]
    readers = sorted(int(key.removeprefix(LAYER).split(".")[0]) for key in shapes if key.endswith("crossattention.self.query.weight"))
    qformer: dict[str, Any] = {
        "model_type": "blip_2_qformer", "hidden_size": width, "encoder_hidden_size": shapes["ln_vision.weight"][0],
        "num_hidden_layers": len({key.removeprefix(LAYER).split(".")[0] for key in shapes if key.startswith(LAYER)}),
        "num_attention_heads": words.get("num_attention_heads", width // HEAD),
        "intermediate_size": shapes[f"{LAYER}0.intermediate.dense.weight"][0],
        "cross_attention_frequency": readers[1] - readers[0] if len(readers) > 1 else words.get("cross_attention_freq", 2),
        "layer_norm_eps": words.get("layer_norm_eps", 1e-12), "hidden_act": "gelu", "pad_token_id": words.get("pad_token_id", 0),
        "vocab_size": shapes[f"{BERT}embeddings.word_embeddings.weight"][0],
        "max_position_embeddings": shapes[f"{BERT}embeddings.position_embeddings.weight"][0], "use_qformer_text_input": True,
    }  # fmt: skip
    own: dict[str, Any] = {name: words[name] for name in ("sep_token_id", "dec_token_id") if name in words}
    return {
        "model_type": "blip-2", "qformer_config": qformer, "num_query_tokens": shapes["query_tokens"][1],
        "image_text_hidden_size": shapes["vision_proj.weight"][0], "norms_memory": True, **own,
    }  # fmt: skip


def _tensors(_config: Mapping[str, Any], shapes: Shapes) -> dict[str, TensorOrigin]:
    return {name: TensorOrigin(key) for key in shapes if (name := _placed(key))}


LAYOUT = LayoutCard("the code of its authors (LAVIS)", _knows, _config, _tensors, idle=IDLE)
