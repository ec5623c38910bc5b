"""The tiny OpenFlamingo of tests/oracles as folders: a LLaMA and a CLIP in Hugging Face layout, and the file of the trained parts.

Its tokenizer has one token per word, `w3` for id 3, so that a text can say every row of ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers

import modelgraft as mg
from support.oracles import Oracle, oracle

REFERENCE: Oracle = oracle("openflamingo")
HEADS = {"num_heads": REFERENCE.config["xattn_heads"], "head_dim": REFERENCE.config["xattn_head_dim"]}
RESAMPLER_HEADS = {"num_heads": REFERENCE.config["resampler_heads"], "head_dim": REFERENCE.config["resampler_head_dim"]}
IMAGE, END_OF_CHUNK = REFERENCE.config["media_token_id"], REFERENCE.config["endofchunk_token_id"]


@dataclass(frozen=True, slots=True)
class Parts:
    """Where the parts lie: the frozen eye and tongue, and the file of what was trained."""

    language: Path
    vision: Path
    trained: Path


def parts(folder: Path, given: Oracle = REFERENCE) -> Parts:
    """Write them below a folder; the file holds what OpenFlamingo's own files hold, which is what was trained."""
    found = Parts(folder / "language", folder / "vision", folder / "openflamingo.safetensors")
    _language(found.language, given)
    write_vision(found.vision, given)
    trained = ("perceiver.", "lang_encoder.model.embed_tokens.")
    save_file(
        {name: tensor for name, tensor in given.weights.items() if name.startswith(trained) or "gated_cross_attn" in name},
        found.trained,
    )
    return found


def as_published(trained: Path) -> Path:
    """The same tensors as older files of OpenFlamingo hold them: a pickle, nested, saved while they were trained on several devices."""
    path = trained.with_name("checkpoint.pt")
    torch.save({"epoch": 0, "model_state_dict": {f"module.{name}": tensor for name, tensor in load_file(trained).items()}}, path)
    return path


def text_of(ids: list[int]) -> str:
    """The text that the tokenizer reads as these ids."""
    return " ".join(word(index) for index in ids)


def word(index: int) -> str:
    """The text of one token."""
    return {0: "<PAD>", IMAGE: "<image>", END_OF_CHUNK: "<|endofchunk|>"}.get(index, f"w{index}")


def rows_of(ids: torch.Tensor, mask: torch.Tensor) -> list[list[int]]:
    """The ids of each row without its padding on the left."""
    return [row[there.bool()].tolist() for row, there in zip(ids, mask, strict=True)]


def untouched_language(folder: Path) -> None:
    """The tongue before it was trained for pictures: without the tokens from `<image>` on, and with other embeddings."""
    model, kept = language_model(), IMAGE
    state = {
        name: tensor[:kept] if len(tensor) == REFERENCE.config["vocab_size"] else tensor for name, tensor in model.state_dict().items()
    }
    state["model.embed_tokens.weight"] = torch.zeros(kept, REFERENCE.config["hidden_size"])
    config = hf.LlamaConfig(**{**model.config.to_dict(), "vocab_size": kept})
    smaller = hf.LlamaForCausalLM(config)
    smaller.load_state_dict(state)
    smaller.save_pretrained(folder)
    _tokenizer(kept, []).save_pretrained(folder)


def language_model(given: Oracle = REFERENCE) -> hf.LlamaForCausalLM:
    """The tongue, as transformers builds it."""
    names = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
        "rms_norm_eps", "pad_token_id",
    )  # fmt: skip
    config = hf.LlamaConfig(**{name: given.config[name] for name in names}, max_position_embeddings=64, tie_word_embeddings=False)
    model = hf.LlamaForCausalLM(config).eval()
    inside = {
        name.removeprefix("lang_encoder.").replace(".decoder_layer.", "."): tensor
        for name, tensor in given.weights.items()
        if name.startswith("lang_encoder.") and "gated_cross_attn" not in name
    }
    model.load_state_dict(inside, strict=True)
    return model


def _language(folder: Path, given: Oracle) -> None:
    language_model(given).save_pretrained(folder)
    _tokenizer(REFERENCE.config["vocab_size"], [word(IMAGE), word(END_OF_CHUNK)]).save_pretrained(folder)


def _tokenizer(count: int, special: list[str]) -> hf.PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({word(index): index for index in range(count)}, unk_token="w1"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return hf.PreTrainedTokenizerFast(tokenizer_object=words, additional_special_tokens=special, pad_token="<PAD>")


def write_vision(folder: Path, given: Oracle) -> None:
    sizes = given.config
    config = hf.CLIPVisionConfig(
        hidden_size=sizes["vision_width"], intermediate_size=4 * sizes["vision_width"], num_hidden_layers=sizes["vision_layers"],
        num_attention_heads=sizes["vision_width"] // sizes["vision_head_width"], image_size=sizes["image_size"],
        patch_size=sizes["patch_size"], hidden_act="quick_gelu",
    )  # fmt: skip
    model = hf.CLIPVisionModel(config).eval()
    model.load_state_dict(_in_transformers_names(given, sizes["vision_layers"]), strict=True)
    model.save_pretrained(folder)


def _in_transformers_names(given: Oracle, layers: int) -> dict[str, torch.Tensor]:
    """open_clip's tower in the names of transformers."""
    theirs = {name.removeprefix("vision_encoder."): tensor for name, tensor in given.weights.items() if name.startswith("vision_")}
    found = {
        "embeddings.class_embedding": theirs["class_embedding"],
        "embeddings.patch_embedding.weight": theirs["conv1.weight"],
        "embeddings.position_embedding.weight": theirs["positional_embedding"],
    }
    pairs = {"pre_layrnorm": "ln_pre", "post_layernorm": "ln_post"}
    for layer in range(layers):
        here, there = f"encoder.layers.{layer}", f"transformer.resblocks.{layer}"
        pairs |= {
            f"{here}.layer_norm1": f"{there}.ln_1", f"{here}.layer_norm2": f"{there}.ln_2", f"{here}.mlp.fc1": f"{there}.mlp.c_fc",
            f"{here}.mlp.fc2": f"{there}.mlp.c_proj", f"{here}.self_attn.out_proj": f"{there}.attn.out_proj",
        }  # fmt: skip
        for kind in ("weight", "bias"):
            for name, share in zip("qkv", theirs[f"{there}.attn.in_proj_{kind}"].chunk(3), strict=True):
                found[f"{here}.self_attn.{name}_proj.{kind}"] = share.clone()
    return found | {f"{mine}.{kind}": theirs[f"{other}.{kind}"] for mine, other in pairs.items() for kind in ("weight", "bias")}


GRAPH = """
modelgraft: 1
inputs:
  pictures: "float[batch images 16 36]"
  prompt: text
nodes:
  resampler:
    use: resampler/perceiver
    from: "./openflamingo.safetensors#perceiver"
    with: {{many: true, {resampler}}}
    in: {{media: inputs.pictures}}
  llm:
    use: llm/causal
    from: ./language
    with: {{max_new_tokens: {new}, prompt: "{template}", suppress_tokens: [61], beams: {beams}}}
    in: {{prompt: inputs.prompt}}
    frozen: true
    adapters:
      - {{use: adapter/gated_cross_attention, {source}with: {{every: 2, {heads}}}, in: {{media: resampler}}}}
outputs: {{text: llm.text, logits: llm.logits}}
"""


def in_yaml(values: dict[str, int]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in values.items())


def graph(folder: Path, *, new: int = 0, beams: int = 1, trained: bool = True, template: str = "{prompt}") -> mg.Graph:
    """OpenFlamingo from its resampler on, over a folder of its parts."""
    source = 'from: "./openflamingo.safetensors#lang_encoder", ' if trained else ""
    path = folder / "graph.yaml"
    sizes = {"heads": in_yaml(HEADS), "resampler": in_yaml(RESAMPLER_HEADS)}
    path.write_text(GRAPH.format(new=new, beams=beams, source=source, template=template, **sizes))
    return mg.load(path)


COUNTED = 'modelgraft: 1\nextends: ./graph.yaml\ninputs.counts: "int64[batch]"\nnodes.llm.in.counts: inputs.counts\n'


def counted_graph(folder: Path) -> mg.Graph:
    """The same, where a record says how many of its pictures are its own; the others fill it up."""
    graph(folder)
    (folder / "counted.yaml").write_text(COUNTED)
    return mg.load(folder / "counted.yaml")


def shown_in(ids: list[int]) -> int:
    """How many pictures a prompt shows."""
    return ids.count(IMAGE)


def pictures_of(case: str, row: int) -> torch.Tensor:
    """The vectors of the pictures of a row of a case, float[images patches width]."""
    return REFERENCE.cases[case].outputs["vision_tokens"][row, :, 0]
