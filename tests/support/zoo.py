"""Tiny random models of the MMBench table, under the keys of their published files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

import modelgraft as mg
from modelgraft.testing import node_of
from modelgraft_plugins.zoo import Abstractor, VisualPrompt
from modelgraft_plugins.zoo.abstractor import Abstractor as AbstractorModule
from modelgraft_plugins.zoo.visual_prompt import VisualPrompt as VisualPromptModule
from support.checkpoints import clip, clip_pictures, llama_config, llama_tokenizer, randomise

OWL_EYE = {
    "hidden_size": 24, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 15, "patch_size": 5,
}  # fmt: skip
OWL_BRIDGE = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 29, "layer_norm_eps": 1e-6}
OWL_QUERIES = 6


def language(folder: Path, *, seed: int = 12, wide: int = 28) -> tuple[Any, Any]:
    """A tiny LLaMA of as many keys as queries, as the first one was, saved by itself, and its tokenizer."""
    tokenizer = llama_tokenizer()
    heads = wide // 16 if wide % 16 == 0 else 4
    config = llama_config(tokenizer, wide=wide, kv_heads=heads)
    config.num_attention_heads = heads
    config.max_position_embeddings = 512  # the prompts of 2023 are long, and the tokenizer has a token for each letter or two
    model = hf.LlamaForCausalLM(config)
    randomise(model, seed=seed)
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, tokenizer


def mplug_owl(folder: Path) -> Path:
    """A whole of four parts in the layout of its files; `language` beside it is its language model by itself."""
    model, tokenizer = language(folder / "language")
    torch.manual_seed(5)
    bridge = AbstractorModule(node_of(Abstractor, {**OWL_BRIDGE, "language_size": 28, "num_queries": OWL_QUERIES}).config)
    randomise(bridge, seed=6)
    state = {f"language_model.{key}": tensor for key, tensor in model.state_dict().items()}
    state |= {f"abstractor.{key}": tensor for key, tensor in bridge.state_dict().items()}
    state |= {f"vision_model.{key}": tensor for key, tensor in owl_eye(OWL_EYE).items()}
    state["query_tokens"] = torch.randn(1, OWL_QUERIES, OWL_BRIDGE["hidden_size"])
    save_file({key: tensor.contiguous().clone() for key, tensor in state.items()}, folder / "model.safetensors")
    whole = {
        "model_type": "mplug-owl", "num_query_tokens": OWL_QUERIES, "vision_config": {"model_type": "mplug_owl_vision_model", **OWL_EYE},
        "visual_abstractor_config": {"model_type": "mplug_owl_visual_abstract", **OWL_BRIDGE, "encoder_hidden_size": 24},
        "text_config": model.config.to_dict(),
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(whole))
    clip_pictures(15).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def owl_eye(sizes: Mapping[str, int]) -> dict[str, torch.Tensor]:
    """Random tensors of an eye under the keys of mPLUG-Owl."""
    wide, inner, patch = sizes["hidden_size"], sizes["intermediate_size"], sizes["patch_size"]
    places = (sizes["image_size"] // patch) ** 2 + 1
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.cls_token": (1, 1, wide), "embeddings.position_embedding": (1, places, wide),
        "embeddings.patch_embed.weight": (wide, 3, patch, patch),
    }  # fmt: skip
    norms = ["embeddings.pre_layernorm", "post_layernorm"]
    for layer in range(sizes["num_hidden_layers"]):
        before = f"encoder.layers.{layer}"
        norms += [f"{before}.input_layernorm", f"{before}.post_attention_layernorm"]
        maps = {
            "self_attn.query_key_value": (3 * wide, wide),
            "self_attn.dense": (wide, wide),
            "mlp.fc1": (inner, wide),
            "mlp.fc2": (wide, inner),
        }
        for name, shape in maps.items():
            shapes |= {f"{before}.{name}.weight": shape, f"{before}.{name}.bias": shape[:1]}
    found = {key: torch.randn(shape) / max(shape[-1], 4) ** 0.5 for key, shape in shapes.items()}
    return found | {f"{name}.{part}": at + 0.3 * torch.randn(wide) for name in norms for part, at in (("weight", 1), ("bias", 0))}


def refuse_unlike(pipeline: mg.Pipeline, **inputs: list[Any]) -> None:
    """A batch answers as its records do alone, and each time the same: texts, and logits of the node `llm`."""
    wanted = ["text", "llm.logits"]
    together, again = pipeline.run(**inputs, outputs=wanted), pipeline.run(**inputs, outputs=wanted)
    assert together["text"] == again["text"]
    torch.testing.assert_close(again["llm.logits"], together["llm.logits"], rtol=0, atol=0)
    for row in range(len(together["text"])):
        alone = pipeline.run(**{name: given[row] for name, given in inputs.items()}, outputs=wanted)
        assert alone["text"] == together["text"][row]
        torch.testing.assert_close(together["llm.logits"][row : row + 1], alone["llm.logits"], rtol=0, atol=2e-5)


def tokenizer_of_ids(count: int) -> hf.PreTrainedTokenizerFast:
    """One whose words are the numbers of its tokens, and which puts nothing around a text: see text_of_ids."""
    words = Tokenizer(models.WordLevel({f"w{index}.": index for index in range(count)}, unk_token="w1."))  # "w1." begins no other
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return hf.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w1.")


def text_of_ids(ids: list[int]) -> str:
    """The text that such a tokenizer reads as these tokens."""
    return " ".join(f"w{number}." for number in ids)


def llama_adapter(folder: Path) -> dict[str, str]:
    """What was trained of a LLaMA-Adapter V2 in a folder, a CLIP and a LLaMA: the params of its graph."""
    wide, layers, heads, queries, looking, width, inner = 32, 2, 2, 5, 1, 26, 39
    model, _ = language(folder / "language", wide=wide)
    clip(folder / "clip")
    torch.manual_seed(8)
    config = {"in_features": 13, "language_size": wide, "width": width, "depth": 2, "heads": 2, "inner_size": inner, "queries": queries}
    visual = VisualPromptModule(node_of(VisualPrompt, config).config)
    randomise(visual, seed=9)
    state = dict(visual.state_dict()) | {"adapter_query.weight": torch.randn(looking * queries, wide)}
    for layer in range(layers):
        before = f"llama.layers.{layer}"
        state[f"{before}.attention.gate"] = torch.randn(1, heads, 1, 1)
        for name, rows in {"wq": wide, "wo": wide}.items():
            state[f"{before}.attention.{name}.bias"] = 0.3 * torch.randn(rows)
        for name, rows in {"w1": model.config.intermediate_size, "w2": wide, "w3": model.config.intermediate_size}.items():
            state[f"{before}.feed_forward.{name}.bias"] = 0.3 * torch.randn(rows)
        for name in ("attention_norm", "ffn_norm"):
            state[f"{before}.{name}.weight"] = 1 + 0.3 * torch.randn(wide)
    state["llama.norm.weight"] = 1 + 0.3 * torch.randn(wide)
    trained = folder / "trained"
    trained.mkdir()
    torch.save({"model": state, "config": {"w_bias": True, "w_lora": False}}, trained / "pytorch_model.bin")
    (trained / "config.json").write_text(json.dumps({"model_type": "llama_adapter_v2", "v_num_heads": 2}))  # which no tensor says
    return {"checkpoint": str(trained), "vision": str(folder / "clip"), "language": str(folder / "language")}


def untouched_tables(model: Any, folder: Path) -> Any:
    """A model of peft whose embeddings and head are those of the language model that it was made of, which was saved before."""
    before = hf.AutoModelForCausalLM.from_pretrained(folder)
    rows = before.get_input_embeddings().weight.shape[0]
    model.resize_token_embeddings(rows, mean_resizing=False)
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(before.get_input_embeddings().weight)
        model.get_output_embeddings().weight.copy_(before.get_output_embeddings().weight)
    return model
