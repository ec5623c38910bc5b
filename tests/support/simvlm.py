"""A tiny SimVLM in a folder, with random weights, and the same composed of what torch has: a reference that shares no code with ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from transformers import BlenderbotConfig
from transformers.models.blenderbot.modeling_blenderbot import BlenderbotDecoder

from modelgraft.testing import open_node
from modelgraft_plugins.simvlm import Encoder
from support.checkpoints import randomise
from support.tokenizers import byte_level

FACTS: dict[str, Any] = {
    "model_type": "simvlm", "image_size": 48, "conv_depths": [1, 2, 1], "conv_width": 4, "conv_norm": "batch", "d_model": 12,
    "num_heads": 3, "ffn_dim": 20, "encoder_layers": 2, "decoder_layers": 3, "max_text": 40, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
State = Mapping[str, Tensor]


def tokenizer(*, side: str = "right") -> Any:
    """One that puts nothing around a text: padding 0, beginning 1, end 2."""
    made = byte_level(begin="<s>", end="</s>", pad="<pad>", extra=())
    made.padding_side = side
    return made


def stem_state(*, depths: tuple[int, ...] = (1, 2, 1), width: int = 4, seed: int = 1) -> dict[str, Tensor]:
    """Random weights of the first three stages of a ResNet in the names of torchvision."""
    generator, found = torch.Generator().manual_seed(seed), dict[str, Tensor]()

    def convolution(name: str, norm: str, before: int, after: int, side: int) -> None:
        found[f"{name}.weight"] = torch.randn(after, before, side, side, generator=generator) * (1.5 / (before * side * side) ** 0.5)
        for key in ("weight", "bias", "running_mean", "running_var"):
            found[f"{norm}.{key}"] = 0.5 + torch.rand(after, generator=generator) if key in ("weight", "running_var") else (
                torch.rand(after, generator=generator) - 0.5
            )  # fmt: skip

    convolution("conv1", "bn1", 3, width, 7)
    before = width
    for stage, depth in enumerate(depths):
        inner, after = width * 2**stage, 4 * width * 2**stage
        for block in range(depth):
            name = f"layer{stage + 1}.{block}"
            for part, (one, other, side) in enumerate([(before, inner, 1), (inner, inner, 3), (inner, after, 1)], 1):
                convolution(f"{name}.conv{part}", f"{name}.bn{part}", one, other, side)
            if block == 0:
                convolution(f"{name}.downsample.0", f"{name}.downsample.1", before, after, 1)
            before = after
    return found


def stem(state: State, pixels: Tensor) -> Tensor:
    """The first layer, the pooling and three stages of torchvision's ResNet: float[batch H*W channels]."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(x, mean, var, weight, bias, eps=1e-5)

    x = norm(functional.conv2d(pixels, state["conv1.weight"], stride=2, padding=3), "bn1").relu()
    x = functional.max_pool2d(x, 3, stride=2, padding=1)
    for stage in (1, 2, 3):
        block = 0
        while f"layer{stage}.{block}.conv1.weight" in state:
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = norm(functional.conv2d(x, state[f"{name}.conv1.weight"]), f"{name}.bn1").relu()
            y = norm(functional.conv2d(y, state[f"{name}.conv2.weight"], stride=stride, padding=1), f"{name}.bn2").relu()
            y = norm(functional.conv2d(y, state[f"{name}.conv3.weight"]), f"{name}.bn3")
            if block == 0:
                x = norm(functional.conv2d(x, state[f"{name}.downsample.0.weight"], stride=stride), f"{name}.downsample.1")
            x, block = (x + y).relu(), block + 1
    return x.flatten(2).mT


def distances(table: Tensor, rows: int, columns: int) -> Tensor:
    """Cell by cell: float[heads rows*columns rows*columns]."""
    found = table.new_zeros(table.shape[1], rows * columns, rows * columns)
    for y in range(rows):
        for x in range(columns):
            for v in range(rows):
                for u in range(columns):
                    place = (y - v + rows - 1) * (2 * columns - 1) + x - u + columns - 1
                    found[:, y * columns + x, v * columns + u] = table[place]
    return found


def part(state: State, prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _attention(into: str, state: State) -> dict[str, Tensor]:
    joined = {f"{into}.in_proj_{kind}": torch.cat([state[f"{name}_proj.{kind}"] for name in "qkv"]) for kind in ("weight", "bias")}
    return {**joined, **{f"{into}.out_proj.{kind}": state[f"out_proj.{kind}"] for kind in ("weight", "bias")}}


def _named(state: State, *names: tuple[str, str]) -> dict[str, Tensor]:
    return {f"{theirs}.{kind}": state[f"{ours}.{kind}"] for ours, theirs in names for kind in ("weight", "bias")}


def encode(state: State, facts: Mapping[str, Any], patches: Tensor | None, ids: Tensor | None, mask: Tensor | None) -> Tensor:
    """float[batch places width], by TransformerEncoderLayer with a mask that is added. Gradients reach the state."""
    mine, width, heads = part(state, "encoder."), facts["d_model"], facts["num_heads"]
    side = facts["image_size"] // 16
    rows, there = [], []
    if patches is not None:
        rows.append(functional.linear(patches, mine["patch_proj.weight"], mine["patch_proj.bias"]) + mine["image_positions"])
        there.append(torch.ones(patches.shape[:2], dtype=torch.bool))
    if ids is not None:
        assert mask is not None
        table = state.get("encoder.embed_tokens.weight", state["decoder.embed_tokens.weight"])
        rows.append(table[ids] + mine["text_positions"][: ids.shape[1]])
        there.append(mask)
    hidden, seen = torch.cat(rows, 1), torch.cat(there, 1)
    batch, places = seen.shape
    for index in range(facts["encoder_layers"]):
        added = torch.zeros(batch, heads, places, places).masked_fill(~seen[:, None, None], -1e30)
        if patches is not None:
            cells = side * side
            added[:, :, :cells, :cells] += distances(mine[f"distances.{index}.relative_position_bias_table"], side, side)
        layer = nn.TransformerEncoderLayer(width, heads, facts["ffn_dim"], 0.0, "gelu", batch_first=True, norm_first=True).eval()
        own = part(mine, f"layers.{index}.")
        names = (("fc1", "linear1"), ("fc2", "linear2"), ("self_attn_layer_norm", "norm1"), ("final_layer_norm", "norm2"))
        weights = {**_attention("self_attn", part(own, "self_attn.")), **_named(own, *names)}
        hidden = functional_call(layer, weights, (hidden,), {"src_mask": added.flatten(0, 1)})
    return functional.layer_norm(hidden, (width,), mine["layer_norm.weight"], mine["layer_norm.bias"])


def decode(state: State, facts: Mapping[str, Any], memory: Tensor, memory_mask: Tensor, ids: Tensor) -> Tensor:
    """Logits, float[batch suffix vocabulary], by TransformerDecoderLayer. Gradients reach the state."""
    mine, width = part(state, "decoder."), facts["d_model"]
    hidden = mine["embed_tokens.weight"][ids] + mine["embed_positions.weight"][: ids.shape[1]]
    onward = nn.Transformer.generate_square_subsequent_mask(ids.shape[1])
    for index in range(facts["decoder_layers"]):
        layer = nn.TransformerDecoderLayer(
            width, facts["num_heads"], facts["ffn_dim"], 0.0, "gelu", batch_first=True, norm_first=True
        ).eval()
        own = part(mine, f"layers.{index}.")
        names = (("fc1", "linear1"), ("fc2", "linear2"), ("self_attn_layer_norm", "norm1"), ("encoder_attn_layer_norm", "norm2"))
        weights = {
            **_attention("self_attn", part(own, "self_attn.")), **_attention("multihead_attn", part(own, "encoder_attn.")),
            **_named(own, *names, ("final_layer_norm", "norm3")),
        }  # fmt: skip
        hidden = functional_call(layer, weights, (hidden, memory), {"tgt_mask": onward, "memory_key_padding_mask": ~memory_mask})
    return functional.layer_norm(hidden, (width,), mine["layer_norm.weight"], mine["layer_norm.bias"]) @ mine["embed_tokens.weight"].mT


@dataclass(frozen=True, slots=True)
class Saved:
    """A folder, what its config.json says, and its weights."""

    folder: Path
    facts: Mapping[str, Any]
    state: State


def _writer(facts: Mapping[str, Any]) -> nn.Module:
    """Its tensors have the names and shapes of the decoder's."""
    sizes = {
        "vocab_size": "vocab_size", "d_model": "d_model", "max_position_embeddings": "max_text", "decoder_layers": "decoder_layers",
        "decoder_ffn_dim": "ffn_dim", "decoder_attention_heads": "num_heads",
    }  # fmt: skip
    return BlenderbotDecoder(BlenderbotConfig(**{theirs: facts[ours] for theirs, ours in sizes.items()}))


def saved(folder: Path, *, side: str = "right", **changed: Any) -> Saved:
    """Write a tiny SimVLM."""
    words = tokenizer(side=side)
    facts = {**FACTS, "vocab_size": len(words), **changed}
    sizes = {key: facts[key] for key in ("d_model", "num_heads", "ffn_dim", "vocab_size", "max_text")}
    state = {f"stem.{key}": value for key, value in stem_state().items()}
    reader = open_node(Encoder, {**sizes, "image_size": facts["image_size"], "channels": 64, "encoder_layers": facts["encoder_layers"]})
    for seed, prefix, module in ((2, "encoder.", reader.loaded.state), (3, "decoder.", _writer(facts))):
        randomise(module, seed=seed)
        state |= {prefix + key: value.detach().contiguous() for key, value in module.state_dict().items()}
    del state["encoder.embed_tokens.weight"]  # the decoder has it
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(facts))
    words.save_pretrained(folder)
    return Saved(folder, facts, state)
