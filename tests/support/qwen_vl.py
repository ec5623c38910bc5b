"""A tiny Qwen-VL with random weights, as its own code saves one, and a Qwen2 of transformers with the same weights beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf
from PIL import Image
from safetensors.torch import save_file

from support import tiktokens
from support.pictures import on_white

RANKS = tiktokens.vocabulary()
ROWS = len(RANKS) + len(tiktokens.MARKS) + 3  # its table is filled up, as the published one
WIDTH, HEADS, LAYERS, INNER = 32, 2, 2, 44
EYE = {
    "image_size": 28, "patch_size": 7, "width": 24, "layers": 2, "heads": 3, "mlp_ratio": 1.9, "n_queries": 4, "output_dim": WIDTH,
    "resampler_heads": 4,
}  # fmt: skip
CONFIG: dict[str, Any] = {
    "model_type": "qwen", "vocab_size": ROWS, "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
    "kv_channels": WIDTH // HEADS, "intermediate_size": 2 * INNER, "layer_norm_epsilon": 1e-6, "rotary_emb_base": 10_000,
    "rotary_pct": 1.0, "no_bias": True, "seq_length": 200, "max_position_embeddings": 800, "tie_word_embeddings": False,
    "use_dynamic_ntk": True, "use_logn_attn": True, "tokenizer_type": "QWenTokenizer", "visual": EYE,
}  # fmt: skip
SEES = "transformer.visual"
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # `visual.py`


@dataclass(frozen=True, slots=True)
class Theirs:
    """Where it lies, and its language model as transformers has it."""

    folder: Path
    language: Any  # Any: a model of transformers

    def generate(self, text: str, pictures: list[torch.Tensor], *, tokens: int, ends: str = "<|endoftext|>") -> list[int]:
        """The new tokens of the likeliest answer; pictures float[4 width] each take the place of four <imgpad>."""
        ids = torch.tensor(tiktokens.encode(text.replace("<imgpad>", "<imgpad>" * EYE["n_queries"]), RANKS))
        embedded = self.language.get_input_embeddings()(ids)
        if pictures:
            embedded[ids == mark("<imgpad>")] = torch.cat([picture.reshape(-1, WIDTH) for picture in pictures])
        found = self.language.generate(
            inputs_embeds=embedded[None], attention_mask=torch.ones(1, len(ids), dtype=torch.int64), max_new_tokens=tokens, do_sample=False,
            eos_token_id=[mark("<|endoftext|>"), mark(ends)], pad_token_id=0,
        )  # fmt: skip
        return found[0].tolist()


def mark(token: str) -> int:
    """The id of a mark."""
    return len(RANKS) + tiktokens.MARKS.index(token)


def decoded(ids: list[int]) -> str:
    """The bytes of tokens, and of marks those that are said."""
    names = {rank: token for token, rank in RANKS.items()} | {mark(token): token.encode() for token in tiktokens.SAID}
    return b"".join(names.get(token, b"") for token in ids).decode(errors="replace")


def make(folder: Path, **words: Any) -> Theirs:
    """Write a checkpoint with its official keys, its tokenizer and how it writes. words: further keys of its config."""
    state = _weights(torch.Generator().manual_seed(7))
    tiktokens.write(folder, RANKS)
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**CONFIG, **words}))
    (folder / "generation_config.json").write_text(
        json.dumps({"chat_format": "chatml", "eos_token_id": mark("<|endoftext|>"), "max_window_size": 90})
    )
    return Theirs(folder, _as_qwen2(state))


def prepared(picture: Image.Image) -> torch.Tensor:
    """A picture as `visual.py` prepares it: float[3 28 28]."""
    square = on_white(picture).resize((EYE["image_size"],) * 2, Image.Resampling.BICUBIC)
    values = torch.tensor(np.asarray(square), dtype=torch.float32).permute(2, 0, 1) / 255
    return (values - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def _weights(generator: torch.Generator) -> dict[str, torch.Tensor]:
    wide, out, patch = EYE["width"], WIDTH, EYE["patch_size"]
    inner = int(wide * EYE["mlp_ratio"])

    def drawn(*shape: int, spread: float | None = None) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * (shape[-1] ** -0.5 if spread is None else spread)

    def normed(width: int, *, bias: bool = True) -> dict[str, torch.Tensor]:
        return {"weight": 1 + drawn(width, spread=0.3), **({"bias": drawn(width, spread=0.3)} if bias else {})}

    def linear(rows: int, columns: int) -> dict[str, torch.Tensor]:
        return {"weight": drawn(rows, columns), "bias": drawn(rows, spread=0.2)}

    layer = {
        "ln_1": normed(out, bias=False), "ln_2": normed(out, bias=False), "attn.c_attn": linear(3 * out, out),
        "attn.c_proj": {"weight": drawn(out, out)}, "mlp.w1": {"weight": drawn(INNER, out)}, "mlp.w2": {"weight": drawn(INNER, out)},
        "mlp.c_proj": {"weight": drawn(out, INNER)},
    }  # fmt: skip
    block = {
        "ln_1": normed(wide), "ln_2": normed(wide), "attn.in_proj": linear(3 * wide, wide), "attn.out_proj": linear(wide, wide),
        "mlp.c_fc": linear(inner, wide), "mlp.c_proj": linear(wide, inner),
    }  # fmt: skip
    parts = {
        **{f"transformer.h.{at}.{name}": part for at in range(LAYERS) for name, part in _again(layer, generator).items()},
        **{f"{SEES}.transformer.resblocks.{at}.{name}": part
           for at in range(EYE["layers"]) for name, part in _again(block, generator).items()},
        f"{SEES}.ln_pre": normed(wide), f"{SEES}.ln_post": normed(out), "transformer.ln_f": normed(out, bias=False),
        f"{SEES}.attn_pool.kv_proj": {"weight": drawn(out, wide)}, f"{SEES}.attn_pool.attn.out_proj": linear(out, out),
        f"{SEES}.attn_pool.ln_q": normed(out), f"{SEES}.attn_pool.ln_kv": normed(out),
    }  # fmt: skip
    alone = {
        "transformer.wte.weight": drawn(ROWS, out, spread=0.6), "lm_head.weight": drawn(ROWS, out),
        f"{SEES}.conv1.weight": drawn(wide, 3, patch, patch, spread=0.1), f"{SEES}.proj": drawn(out, out),
        f"{SEES}.positional_embedding": drawn(256, wide, spread=0.5), f"{SEES}.attn_pool.query": drawn(4, out, spread=0.5),
        f"{SEES}.attn_pool.pos_embed": drawn(4, out, spread=0.5), f"{SEES}.attn_pool.attn.in_proj_weight": drawn(3 * out, out),
        f"{SEES}.attn_pool.attn.in_proj_bias": drawn(3 * out, spread=0.2),
    }  # fmt: skip
    return {**{f"{name}.{key}": tensor for name, part in parts.items() for key, tensor in part.items()}, **alone}


def _again(layer: dict[str, dict[str, torch.Tensor]], generator: torch.Generator) -> dict[str, dict[str, torch.Tensor]]:
    """A layer with a little noise of its own, so that layers are not alike."""
    return {
        name: {key: tensor + 0.1 * tensor.std() * torch.randn(tensor.shape, generator=generator) for key, tensor in part.items()}
        for name, part in layer.items()
    }


def _as_qwen2(state: dict[str, torch.Tensor]) -> Any:
    config = hf.Qwen2Config(
        vocab_size=ROWS, hidden_size=WIDTH, intermediate_size=INNER, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=HEADS, max_position_embeddings=800, rms_norm_eps=1e-6, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
    )  # fmt: skip
    model, found = hf.Qwen2ForCausalLM(config).eval(), {"lm_head.weight": state["lm_head.weight"]}
    found |= {"model.embed_tokens.weight": state["transformer.wte.weight"], "model.norm.weight": state["transformer.ln_f.weight"]}
    for at in range(LAYERS):
        theirs, ours = f"transformer.h.{at}", f"model.layers.{at}"
        for kind in ("weight", "bias"):
            for name, part in zip("qkv", state[f"{theirs}.attn.c_attn.{kind}"].split(WIDTH), strict=True):
                found[f"{ours}.self_attn.{name}_proj.{kind}"] = part
        found[f"{ours}.self_attn.o_proj.weight"] = state[f"{theirs}.attn.c_proj.weight"]
        found[f"{ours}.mlp.gate_proj.weight"] = state[f"{theirs}.mlp.w2.weight"]
        found[f"{ours}.mlp.up_proj.weight"] = state[f"{theirs}.mlp.w1.weight"]
        found[f"{ours}.mlp.down_proj.weight"] = state[f"{theirs}.mlp.c_proj.weight"]
        found[f"{ours}.input_layernorm.weight"] = state[f"{theirs}.ln_1.weight"]
        found[f"{ours}.post_attention_layernorm.weight"] = state[f"{theirs}.ln_2.weight"]
    model.load_state_dict(found)
    return model
