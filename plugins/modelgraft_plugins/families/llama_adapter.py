"""LLaMA-Adapter V2: a LLaMA whose last layers look at a few vectors that were made of a picture (arXiv 2304.15010).

Its published files hold what was trained, in the names of Meta's LLaMA; a config.json beside them may state the arguments of its code.
Files that hold the eye and the language model too are taken apart into them. Rotation goes by neighbouring pairs in Meta's files and by
halves in transformers, so that rows of queries and keys change places.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from modelgraft.plugin import FamilyCard, LayoutCard, PartCard, TensorOrigin, WholeCard
from modelgraft_plugins.families._shared import PLAIN
from modelgraft_plugins.official_clip import PROJECTIONS, VISION, placed

KIND = "llama_adapter_v2"
EYE, LANGUAGE = "clip.", "llama."
PROMPT = ("clip_proj.", "clip_proj_norm.", "visual_query.", "visual_blocks.", "visual_proj.", "visual_proj_norm.")
HEADS = 16  # of the visual blocks, where nothing says it
ADDED: Mapping[str, str] = {  # a bias of Meta's layer -> its name in the adapter
    "attention.wq.bias": "q_proj", "attention.wo.bias": "o_proj", "feed_forward.w1.bias": "gate_proj", "feed_forward.w2.bias": "down_proj",
    "feed_forward.w3.bias": "up_proj",
}  # fmt: skip
NORMS: Mapping[str, str] = {"attention_norm.weight": "input_layernorm.weight", "ffn_norm.weight": "post_attention_layernorm.weight"}
WEIGHTS: Mapping[str, str] = {
    "attention.wq.weight": "self_attn.q_proj.weight", "attention.wk.weight": "self_attn.k_proj.weight",
    "attention.wv.weight": "self_attn.v_proj.weight", "attention.wo.weight": "self_attn.o_proj.weight",
    "feed_forward.w1.weight": "mlp.gate_proj.weight", "feed_forward.w2.weight": "mlp.down_proj.weight",
    "feed_forward.w3.weight": "mlp.up_proj.weight", **NORMS,
}  # fmt: skip
OUTSIDE: Mapping[str, str] = {
    "tok_embeddings.weight": "model.embed_tokens.weight", "norm.weight": "model.norm.weight", "output.weight": "lm_head.weight",
}  # fmt: skip
LAYER = re.compile(r"llama\.layers\.(\d+)\.(.+)")
ROTATED = ("attention.wq.weight", "attention.wk.weight", "attention.wq.bias", "attention.lora_wq_l2.weight", "attention.lora_wk_l2.weight")
UPDATE = re.compile(r"(attention|feed_forward)\.lora_(w\w)_l([12])\.weight")
Shapes = Mapping[str, tuple[int, ...]]


def _knows(root: Mapping[str, Any], shapes: Shapes) -> bool:
    return root.get("model_type") == KIND or (not root and "adapter_query.weight" in shapes and "visual_query.weight" in shapes)


def _config(root: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    """The words of its code, and configs of transformers for the eye and the language model."""
    words = {**(_sizes(shapes) if shapes else {}), **root, "model_type": KIND}
    words["updates_rank"] = words.get("lora_rank", 16) if words.get("w_lora") else 0
    clip = words.get("clip")
    if isinstance(clip, Mapping):
        words |= {"projection_dim": clip["output_dim"], "vision_config": _eye(clip)}
    inner = round(words.get("v_embed_dim", 768) * words.get("v_mlp_ratio", 4.0))
    return {**words, "inner_size": inner, "text_config": _language(words)}


def _sizes(shapes: Shapes) -> dict[str, Any]:
    """What the tensors say."""
    queries, prompt = shapes["visual_query.weight"], shapes["adapter_query.weight"]
    gates = [key for key in shapes if key.endswith("attention.gate")]
    inner = next((shape[0] for key, shape in shapes.items() if key.endswith(("feed_forward.w1.bias", "lora_w1_l2.weight"))), None)
    rank = next((shape[0] for key, shape in shapes.items() if key.endswith("lora_wq_l1.weight")), 0)
    return {
        "dim": prompt[1], "n_layers": len(gates), "n_heads": shapes[gates[0]][1], "query_len": queries[0],
        "query_layer": prompt[0] // queries[0], "v_embed_dim": queries[1], "v_num_heads": HEADS,
        "v_depth": len({key.split(".")[1] for key in shapes if key.startswith("visual_blocks.")}),
        "v_mlp_ratio": shapes["visual_blocks.0.mlp.fc1.weight"][0] / queries[1], "w_bias": any(key.endswith("wq.bias") for key in shapes),
        "w_lora": bool(rank), "lora_rank": rank, "w_new_gate": any(key.endswith("new_gate") for key in shapes),
        **({"intermediate_size": inner} if inner is not None else {}),
    }  # fmt: skip


def _inner(words: Mapping[str, Any]) -> int:
    """Width of the feed-forward layers, as Meta's code works it out."""
    step = words.get("multiple_of", 256)
    return int(words.get("intermediate_size") or step * math.ceil(int(2 * 4 * words["dim"] / 3) / step))


def _eye(clip: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "model_type": "clip_vision_model", "hidden_size": clip["width"], "intermediate_size": 4 * clip["width"],
        "num_hidden_layers": clip["layers"], "num_attention_heads": clip["heads"], "image_size": clip["input_resolution"],
        "patch_size": clip["patch_size"], "hidden_act": "quick_gelu", "projection_dim": clip["output_dim"],
    }  # fmt: skip


def _language(words: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "model_type": "llama", "hidden_size": words["dim"], "num_hidden_layers": words["n_layers"], "num_attention_heads": words["n_heads"],
        "num_key_value_heads": words["n_heads"], "intermediate_size": _inner(words), "vocab_size": words.get("vocab_size", 32000),
        "rms_norm_eps": words.get("norm_eps", 1e-5), "max_position_embeddings": words.get("max_seq_len", 2048),
        "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip


def _tensors(config: Mapping[str, Any], shapes: Shapes) -> dict[str, TensorOrigin]:
    """The eye and the language model under the names of transformers, what was trained under those of its components."""
    has_language = "llama.tok_embeddings.weight" in shapes
    found: dict[str, TensorOrigin] = {}
    for key, shape in shapes.items():
        if key == "adapter_query.weight":
            found["adapter.query"] = TensorOrigin(key)
        elif key.startswith(PROMPT):
            found[f"visual.{key}"] = TensorOrigin(key)
        elif key.startswith(EYE):
            found |= placed(key, shape, {**VISION, **PROJECTIONS}, before=EYE)
        elif (layer := LAYER.fullmatch(key)) is not None:
            found |= _of_layer(key, layer[1], layer[2], shape, config["n_heads"], has_language=has_language)
        elif key.startswith(LANGUAGE) and (to := OUTSIDE.get(key.removeprefix(LANGUAGE))) is not None:
            found[f"language_model.{to}" if has_language else "adapter.norm.weight"] = TensorOrigin(key)
    return found


def _of_layer(key: str, number: str, inside: str, shape: tuple[int, ...], heads: int, *, has_language: bool) -> dict[str, TensorOrigin]:
    """Where a tensor of a layer of the language model goes; {}: nowhere."""
    rest = shape[1:]
    turned = TensorOrigin(key, shape=(heads, -1, 2, *rest), axes=(0, 2, 1, *range(3, 3 + len(rest))), into=(-1, *rest))
    origin = turned if inside in ROTATED else TensorOrigin(key)
    if inside == "attention.gate":
        return {f"adapter.layers.{number}.gate": TensorOrigin(key, shape=(-1,))}
    if inside == "attention.new_gate":
        return {f"adapter.layers.{number}.second_gate": TensorOrigin(key, shape=(-1,))}
    if (update := UPDATE.fullmatch(inside)) is not None:
        name = WEIGHTS[f"{update[1]}.{update[2]}.weight"].split(".")[1]
        return {f"adapter.layers.{number}.{name}_{'down' if update[3] == '1' else 'up'}": origin}
    if inside in ADDED:
        return {f"adapter.layers.{number}.{ADDED[inside]}": origin}
    if not has_language:
        return {f"adapter.layers.{number}.{NORMS[inside]}": origin} if inside in NORMS else {}
    return {f"language_model.model.layers.{number}.{WEIGHTS[inside]}": origin} if inside in WEIGHTS else {}


CARD = FamilyCard(
    "llama_adapter",
    "a LLaMA whose last layers look at a few vectors that were made of a picture",
    wholes={
        KIND: WholeCard(
            parts={
                "vision_model": PartCard("vision_config", "clip_vision_model"),
                "visual_projection": PLAIN,
                "visual": PLAIN,
                "adapter": PLAIN,
                "language_model": PartCard("text_config", "llama", language="always"),
            },
            pictures="CLIP",
            obeyed=frozenset({
                "dim", "n_layers", "n_heads", "vocab_size", "multiple_of", "norm_eps", "max_seq_len", "w_bias", "query_len", "query_layer",
                "v_embed_dim", "v_depth", "v_num_heads", "v_mlp_ratio", "v_norm_eps", "clip", "projection_dim", "vision_config",
                "text_config", "intermediate_size", "inner_size", "w_lora", "lora_rank", "updates_rank",
                "w_new_gate",
            }),
            idle=frozenset({"max_batch_size", "phase"}),
            components={
                "zoo/visual_prompt": {
                    "width": ("v_embed_dim", 768), "depth": ("v_depth", 8), "heads": ("v_num_heads", HEADS), "queries": ("query_len", 10),
                    "inner_size": ("inner_size", None), "block_eps": ("v_norm_eps", 1e-5),
                    "in_features": ("projection_dim", None), "language_size": ("dim", None),
                },
                "adapter/prefix_attention": {
                    "fields": {
                        "vectors": ("query_len", 10), "layers": ("query_layer", 31), "biases": ("w_bias", True),
                        "intermediate_size": ("text_config.intermediate_size", None), "lora_rank": ("updates_rank", 0),
                        "second_gate": ("w_new_gate", False),
                    },
                },
            },
        ),
    },
    graphs={KIND: "llama_adapter"},
    layouts=(LayoutCard("LLaMA-Adapter", _knows, _config, _tensors),),
)  # fmt: skip
