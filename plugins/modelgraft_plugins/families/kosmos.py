"""Kosmos: a picture is 64 vectors among the words of a decoder with norms within its layers (arXiv 2302.14045, 2306.14824).

Kosmos-2 as transformers keeps it, and as its authors do: one file `kosmos-2.pt` under the keys of their code. Kosmos-1, of which no weights
are public, has the same parts, but for how its decoder knows positions; it is read in the words of torchscale as well.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from modelgraft.plugin import FamilyCard, LanguageCard, LayoutCard, PartCard, TensorOrigin, WholeCard
from modelgraft_plugins.families import clip
from modelgraft_plugins.families._formulas import forward, head, linear, norm
from modelgraft_plugins.families._shared import BICUBIC, CLIP_MEAN, CLIP_STD, PLAIN, eye_sizes
from modelgraft_plugins.official_clip import BLOCK
from modelgraft_plugins.stated import Table

Shapes = Mapping[str, tuple[int, ...]]
HEAD = 64  # numbers in a head of the eye and of the decoder, as published: shapes do not say it
FIRST, SECOND = "kosmos-1", "kosmos-2"  # model types of the wholes


class KosmosSteps(clip.ClipSteps):
    """CLIP, whose last norm is over all tokens."""

    def finish(self, tower: Any, hidden: Any, _settings: Mapping[str, Any]) -> tuple[Any, Any]:
        """Tokens and the class token, both normed."""
        tokens = tower.post_layernorm(hidden)
        return tokens, tokens[:, 0]


def _count(f: Mapping[str, Any]) -> int:
    width, inner = f["embed_dim"], f["ffn_dim"]
    layer = 4 * linear(width, width, bias=True) + forward(width, inner) + 3 * norm(width) + norm(inner)
    return int(f["vocab_size"] * width + f["layers"] * layer + norm(width) + head(f, width))


LANGUAGE = LanguageCard(
    {
        "vocab_size": 65_037, "max_position_embeddings": 2048, "embed_dim": 2048, "layers": 24, "ffn_dim": 8192, "attention_heads": 32,
        "activation_function": "gelu", "layer_norm_eps": 1e-5, "scale_embedding": True, "tie_word_embeddings": True, "pad_token_id": 1,
        "bos_token_id": 0, "eos_token_id": 2, "add_cross_attention": False,
    },
    _count,
    names={"hidden_size": "embed_dim", "num_hidden_layers": "layers", "num_attention_heads": "attention_heads"},
    even=True,
)  # fmt: skip
EYE = replace(
    clip.EYE,
    style="kosmos",
    defaults={**eye_sizes(1024, 4096, 24, 16, 14), "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
    steps=KosmosSteps(),
)


def _whole(language: str) -> WholeCard:
    return WholeCard(
        parts={
            "vision_model": PartCard("vision_config", "kosmos_2_vision_model", strip="model."),
            "image_to_text_projection": PLAIN,
            "text_model": PartCard("text_config", language),
        },
        pictures="CLIP",
        tied=True,
        keeps=True,
        begin_token="<s>",  # noqa: S106 a token of the vocabulary; its tokenizer would put an end token behind a prompt too
    )


# -- the files of its authors ---------------------------------------------------------------------------------------------

DECODER, PICTURES, CONNECTOR = "gpt_model.decoder.", "img_model.visual.", "img_connector."
IDLE = (f"{DECODER}embed_positions.", f"{DECODER}self_attn_sope.", f"{DECODER}version")  # a buffer for its device, and of an idea given up
NAMES: Mapping[str, str] = {  # of the eye, beside its blocks
    "class_embedding": "embeddings.class_embedding", "positional_embedding": "embeddings.position_embedding.weight",
    "conv1.weight": "embeddings.patch_embedding.weight", "ln_pre.weight": "pre_layrnorm.weight", "ln_pre.bias": "pre_layrnorm.bias",
    "ln_post.weight": "post_layernorm.weight", "ln_post.bias": "post_layernorm.bias",
}  # fmt: skip
IN_BLOCK = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)\.(weight|bias)")
IN_LAYER = (
    r"layers\.\d+\.(?:self_attn\.(?:[qkv]_proj|out_proj|inner_attn_ln)|self_attn_layer_norm|final_layer_norm|ffn\.(?:fc[12]|ffn_layernorm))"
)
IN_DECODER = re.compile(rf"(?:embed_tokens|output_projection|layer_norm|{IN_LAYER})\.(?:weight|bias)|layers\.\d+\.self_attn\.xpos\.scale")
IN_CONNECTOR = re.compile(r"latent_query|(?:dense|x_attn\.(?:[qkv]|out)_proj)\.(?:weight|bias)")
# of torchscale's DecoderConfig -> ours
WORDS: Mapping[str, str] = {
    "vocab_size": "vocab_size", "decoder_embed_dim": "embed_dim", "decoder_attention_heads": "attention_heads",
    "decoder_ffn_embed_dim": "ffn_dim", "decoder_layers": "layers", "padding_idx": "pad_token_id", "layernorm_eps": "layer_norm_eps",
    "activation_fn": "activation_function", "share_decoder_input_output_embed": "tie_word_embeddings",
    "xpos_scale_base": "xpos_scale_base", "max_target_positions": "max_position_embeddings",
}  # fmt: skip
TORCHSCALE = Table(
    "config.json",
    frozenset({*WORDS, "model_type", "no_scale_embedding"}),
    frozenset({"dropout", "attention_dropout", "activation_dropout", "drop_path_rate", "checkpoint_activations", "fsdp", "ddp_rank"}),
    {
        "subln": (True,), "xpos_rel_pos": (True,), "decoder_normalize_before": (True,), "deepnorm": (False,), "rel_pos_buckets": (0,),
        "max_rel_pos": (0,), "moe_freq": (0,), "layernorm_embedding": (False,), "multiway": (False,), "no_output_layer": (False,),
        "bert_init": (False,),
    },
)  # fmt: skip
NEEDED = ("decoder_embed_dim", "decoder_attention_heads", "decoder_ffn_embed_dim", "decoder_layers", "vocab_size", "subln", "xpos_rel_pos")


def _knows_official(root: Mapping[str, Any], shapes: Shapes) -> bool:
    marks = (f"{DECODER}embed_tokens.weight", f"{PICTURES}conv1.weight", f"{CONNECTOR}latent_query")
    return not root and all(key in shapes for key in marks) and all(_placed(key) or key.startswith(IDLE) for key in shapes)


def _official_config(_root: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    """By shapes. Raises ValueError for widths that heads of 64 do not share."""
    rows, width = shapes[f"{DECODER}embed_tokens.weight"]
    eye, _, patch, _ = shapes[f"{PICTURES}conv1.weight"]
    if width % HEAD or eye % HEAD:
        raise ValueError(f"it is {width} wide and its eye {eye}, and heads of {HEAD}, as published, do not share that")
    side = math.isqrt(shapes[f"{PICTURES}positional_embedding"][0] - 1) * patch
    return {
        "model_type": SECOND, "latent_query_num": shapes[f"{CONNECTOR}latent_query"][0],
        "text_config": {
            "model_type": "kosmos_2_text_model", "vocab_size": rows, "embed_dim": width, "attention_heads": width // HEAD,
            "layers": _layers(shapes, f"{DECODER}layers."), "ffn_dim": shapes[f"{DECODER}layers.0.ffn.fc1.weight"][0],
        },
        "vision_config": {
            "model_type": "kosmos_2_vision_model", "hidden_size": eye, "num_attention_heads": eye // HEAD, "patch_size": patch,
            "num_hidden_layers": _layers(shapes, f"{PICTURES}transformer.resblocks."), "image_size": side,
            "intermediate_size": shapes[f"{PICTURES}transformer.resblocks.0.mlp.c_fc.weight"][0],
        },
    }  # fmt: skip


def _placed(key: str) -> str:
    """Where a tensor of an official file goes; "": nowhere."""
    if key.startswith(DECODER):
        return _of_decoder(key.removeprefix(DECODER), "text_model.")
    if key.startswith(CONNECTOR):
        inside = key.removeprefix(CONNECTOR)
        return f"image_to_text_projection.{inside}" if IN_CONNECTOR.fullmatch(inside) else ""
    inside = key.removeprefix(PICTURES) if key.startswith(PICTURES) else ""
    if inside in NAMES:
        return f"vision_model.model.{NAMES[inside]}"
    if (block := IN_BLOCK.fullmatch(inside)) is None:
        return ""
    name = BLOCK.get(block[2]) or re.sub(r"^ts_attn\.([qkv]|out)_proj$", r"self_attn.\1_proj", block[2])
    return f"vision_model.model.encoder.layers.{block[1]}.{name}.{block[3]}" if name != block[2] else ""


def _of_decoder(inside: str, before: str) -> str:
    if IN_DECODER.fullmatch(inside) is None:
        return ""
    return f"{before}lm_head.weight" if inside == "output_projection.weight" else f"{before}model.{inside}"


def _layers(shapes: Shapes, start: str) -> int:
    return len({key.removeprefix(start).partition(".")[0] for key in shapes if key.startswith(start)})


def _official_tensors(_config: Mapping[str, Any], shapes: Shapes) -> dict[str, TensorOrigin]:
    return {name: TensorOrigin(key) for key in shapes if (name := _placed(key))}


def _pictures(_root: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """A square, whatever the shape of a picture was."""
    side = config.get("vision_config", {}).get("image_size", 224)
    prepared = {
        "image_processor_type": "CLIPImageProcessor", "size": {"height": side, "width": side}, "resample": BICUBIC, "do_center_crop": False,
        "image_mean": list(CLIP_MEAN), "image_std": list(CLIP_STD), "do_convert_rgb": True,
    }  # fmt: skip
    return {"preprocessor_config.json": prepared}


def _knows_torchscale(root: Mapping[str, Any], _shapes: Shapes) -> bool:
    return root.get("model_type") == FIRST and "decoder_embed_dim" in root


def _torchscale_config(root: Mapping[str, Any], _shapes: Shapes) -> dict[str, Any]:
    """Raises ValueError for what is missing, and for keys that would make another decoder of it."""
    if lacking := [key for key in NEEDED if key not in root]:
        raise ValueError(f"its config.json is in the words of torchscale, and has no {', '.join(lacking)}")
    if over := TORCHSCALE.over(root):
        raise ValueError(f"the decoder of Kosmos-1 has no {', '.join(f'{key}: {value!r}' for key, value in sorted(over.items()))}")
    own = {ours: root[key] for key, ours in WORDS.items() if key in root}
    return {"model_type": "kosmos_1_text_model", **own, "scale_embedding": not root.get("no_scale_embedding", False)}


def _torchscale_tensors(_config: Mapping[str, Any], shapes: Shapes) -> dict[str, TensorOrigin]:
    return {name: TensorOrigin(key) for key in shapes if (name := _of_decoder(key, ""))}


def _nothing(_root: Mapping[str, Any], _config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {}


LAYOUTS: Sequence[LayoutCard] = (
    LayoutCard("Kosmos-2's code", _knows_official, _official_config, _official_tensors, _pictures, idle=IDLE),
    LayoutCard("torchscale", _knows_torchscale, _torchscale_config, _torchscale_tensors, _nothing),
)
CARD = FamilyCard(
    "kosmos",
    "a picture is 64 vectors among the words of a decoder, which can point at places of it",
    wholes={SECOND: _whole("kosmos_2_text_model"), FIRST: _whole("kosmos_1_text_model")},
    towers={"kosmos_2_vision_model": EYE},
    languages={
        "kosmos_2_text_model": LANGUAGE,
        "kosmos_1_text_model": replace(LANGUAGE, defaults={**LANGUAGE.defaults, "vocab_size": 64_007, "xpos_scale_base": 512}),
    },
    graphs={SECOND: "kosmos2", FIRST: "kosmos1"},
    layouts=tuple(LAYOUTS),
)
