"""Tiny random checkpoints of models that read pictures at their own size, and how transformers asks them.

Their processors want torchvision for films or for tensors. Qwen2-VL's own is used without its part for films; Mistral 3's is written out
in loops here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from PIL import Image
from transformers.models.pixtral.image_processing_pil_pixtral import PixtralImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor

from support.checkpoints import Checkpoint, randomise
from support.pictures import on_white
from support.tokenizers import byte_level

MARKS = ("<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
QWEN = {
    "qwen2_vl": (hf.Qwen2VLConfig, hf.Qwen2VLForConditionalGeneration),
    "qwen2_5_vl": (hf.Qwen2_5_VLConfig, hf.Qwen2_5_VLForConditionalGeneration),
    "qwen3_vl": (hf.Qwen3VLConfig, hf.Qwen3VLForConditionalGeneration),
}
EYES: dict[str, dict[str, Any]] = {
    "qwen2_vl": {"depth": 3, "embed_dim": 24, "hidden_size": 32, "num_heads": 3, "mlp_ratio": 2, "patch_size": 4},
    "qwen2_5_vl": {
        "depth": 3, "hidden_size": 24, "out_hidden_size": 32, "num_heads": 3, "intermediate_size": 30, "patch_size": 4, "window_size": 16,
        "fullatt_block_indexes": [1],
    },
    "qwen3_vl": {
        "depth": 4, "hidden_size": 24, "out_hidden_size": 32, "num_heads": 3, "intermediate_size": 30, "patch_size": 4,
        "num_position_embeddings": 25, "deepstack_visual_indexes": [0, 2],
    },
}  # fmt: skip
TEXT = {
    "hidden_size": 32, "intermediate_size": 45, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}  # fmt: skip


class _Pictures(Qwen2VLProcessor):
    """Qwen2-VL's processor without its part for films."""

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
        return type(argument)


def qwen(folder: Path, kind: str, *, seed: int = 41) -> Checkpoint:
    """A Qwen2-VL, Qwen2.5-VL or Qwen3-VL."""
    tokenizer = byte_level(begin=None, end="<|im_end|>", pad="<|endoftext|>", extra=MARKS)
    ids = {f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{name}_pad|>") for name in ("image", "video")}
    ids |= {f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("vision_start", "vision_end")}
    text = {
        **TEXT, "vocab_size": len(tokenizer), "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]},
        "bos_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    if kind == "qwen3_vl":
        text |= {"head_dim": 8, "num_hidden_layers": 3}
    config_class, model_class = QWEN[kind]
    model = model_class(config_class(text_config=text, vision_config=EYES[kind], **ids))
    pictures = Qwen2VLImageProcessorPil(size={"shortest_edge": 256, "longest_edge": 3000}, patch_size=4)
    return _saved(folder, model, _Pictures(pictures, tokenizer, None), [pictures, tokenizer], seed=seed)


def mistral(folder: Path, kind: str, *, seed: int = 42) -> Checkpoint:
    """A Mistral 3, or a Pixtral, which is a LLaVA by its config; `processor` is the tokenizer."""
    tokenizer = byte_level(
        begin="<s>", end="</s>", pad="<pad>", prefix=True, extra=("[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]")
    )
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    text = {**TEXT, "model_type": "mistral", "vocab_size": len(tokenizer), "head_dim": 8, "sliding_window": None, **ids}
    eye = {
        "model_type": "pixtral", "hidden_size": 24, "intermediate_size": 31, "num_hidden_layers": 3, "num_attention_heads": 3,
        "patch_size": 4, "image_size": 40,
    }  # fmt: skip
    token = tokenizer.convert_tokens_to_ids("[IMG]")
    model: Any
    if kind == "mistral3":
        config = hf.Mistral3Config(
            vision_config=eye, text_config=text, image_token_index=token, spatial_merge_size=2, vision_feature_layer=-2,
            tie_word_embeddings=False,
        )  # fmt: skip
        model = hf.Mistral3ForConditionalGeneration(config)
    else:
        llava = hf.LlavaConfig(
            vision_config=eye, text_config=text, image_token_index=token, vision_feature_layer=-1, vision_feature_select_strategy="full",
            tie_word_embeddings=False,
        )  # fmt: skip
        model = hf.LlavaForConditionalGeneration(llava)
    merge = 2 if kind == "mistral3" else 1
    pictures = PixtralImageProcessorPil(size={"longest_edge": 40}, patch_size=4)
    made = _saved(folder, model, tokenizer, [pictures, tokenizer], seed=seed)
    marks = {"image_token": "[IMG]", "image_break_token": "[IMG_BREAK]", "image_end_token": "[IMG_END]"}
    own = {"processor_class": "PixtralProcessor", "patch_size": 4, "spatial_merge_size": merge, **marks}
    (folder / "processor_config.json").write_text(json.dumps(own))
    return made


def _saved(folder: Path, model: Any, processor: Any, parts: Sequence[Any], *, seed: int) -> Checkpoint:
    randomise(model, seed=seed)
    model.eval()
    model.save_pretrained(folder)
    for part in parts:
        part.save_pretrained(folder)
    return Checkpoint(folder, model, processor)


def flattened(folder: Path) -> None:
    """Write a config as Qwen2-VL's were published: the language model's at the root, M-RoPE under its first name."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    text = config.pop("text_config")
    turns = text.pop("rope_parameters")
    text |= {"rope_theta": turns["rope_theta"], "rope_scaling": {"type": "mrope", "mrope_section": turns["mrope_section"]}}
    kept = {key: value for key, value in text.items() if key not in ("model_type", "layer_types")}
    config.pop("tie_word_embeddings")
    config["vision_config"] = {key: value for key, value in config["vision_config"].items() if key not in ("model_type", "rope_parameters")}
    path.write_text(json.dumps({**kept, **config}))


def former(folder: Path) -> None:
    """Write a config as Qwen3-VL's were published: an eye under the name of the whole, M-RoPE under `rope_scaling`."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    turns = config["text_config"].pop("rope_parameters")
    scaling = {"rope_type": "default", "mrope_interleaved": True, "mrope_section": turns["mrope_section"]}
    config["text_config"] |= {"rope_theta": turns["rope_theta"], "rope_scaling": scaling}
    config["vision_config"].pop("rope_parameters", None)
    config["vision_config"]["model_type"] = "qwen3_vl"
    path.write_text(json.dumps(config))


def nested(folder: Path) -> None:
    """Write the tensors under the names that transformers has in memory, as files of some later checkpoints do."""
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    names = (("visual.", "model.visual."), ("model.", "model.language_model."), ("", ""))
    found = {next(to + key.removeprefix(of) for of, to in names if key.startswith(of)): tensor for key, tensor in load_file(path).items()}
    save_file(found, path, {"format": "pt"})


def given_qwen(pictures: Sequence[Sequence[Image.Image]], prompts: Sequence[str], theirs: Checkpoint) -> Any:
    """What the processor and the chat template make of pictures and questions: Qwen3-VL is told nothing first."""
    first = "" if theirs.model.config.model_type == "qwen3_vl" else "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    shown = "<|vision_start|><|image_pad|><|vision_end|>"
    texts = [
        f"{first}<|im_start|>user\n{shown * len(record)}{prompt}<|im_end|>\n<|im_start|>assistant\n"
        for record, prompt in zip(pictures, prompts, strict=True)
    ]
    flat = [on_white(image) for record in pictures for image in record]
    return theirs.processor(text=texts, **({"images": flat} if flat else {}), padding=True, return_tensors="pt")


def given_mistral(pictures: Sequence[Sequence[Image.Image]], prompts: Sequence[str], theirs: Checkpoint, *, merge: int) -> Any:
    """The same of a Mistral 3 or Pixtral: [IMG] for each token of a picture, [IMG_BREAK] behind each of its rows, [IMG_END] at its end."""
    flat = [on_white(image) for record in pictures for image in record]
    process = PixtralImageProcessorPil(size={"longest_edge": 40}, patch_size=4 * merge)
    seen = process(flat, return_tensors="pt") if flat else {}
    sizes = iter(seen.get("image_sizes", torch.zeros(0)).tolist())
    texts = []
    for record, prompt in zip(pictures, prompts, strict=True):
        shown = ""
        for _ in record:
            rows, columns = (int(side) // (4 * merge) for side in next(sizes))
            shown += "".join(["[IMG]" * columns + ("[IMG_BREAK]" if row < rows - 1 else "[IMG_END]") for row in range(rows)])
        texts.append(f"[INST]{shown}{prompt}[/INST]")
    given = {**theirs.processor(texts, padding=True, return_tensors="pt"), **seen}
    given.pop("token_type_ids", None)
    return given


def generated(theirs: Checkpoint, given: Any, new: int) -> tuple[list[str], Any]:
    """The new texts and first logits of `generate`."""
    model, tokenizer = theirs.model, getattr(theirs.processor, "tokenizer", theirs.processor)
    found = model.generate(
        **given, max_new_tokens=new, do_sample=False, output_logits=True, return_dict_in_generate=True, pad_token_id=tokenizer.pad_token_id
    )
    answers = found.sequences[:, given["input_ids"].shape[1] :]
    return [tokenizer.decode(row, skip_special_tokens=True) for row in answers], found.logits[0]
