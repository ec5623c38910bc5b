"""A tiny Kosmos-2 with random weights, as transformers saves it, with a tokenizer that takes in spaces before marks as its own does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from support.checkpoints import Checkpoint, randomise
from support.tokenizers import SENTENCES

BINS, QUERIES, MOST = 3, 5, 2048
EYE = {"hidden_size": 24, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 15, "patch_size": 5}
WORDS = {"embed_dim": 40, "layers": 2, "ffn_dim": 51, "attention_heads": 5}


def tokenizer() -> Any:
    """XLM-RoBERTa's class, as Kosmos-2 has it, of the words and letters of a few sentences."""
    said = " ".join(SENTENCES) + " An image of It is What is this? Question: Answer: Describe this image in detail:"
    letters = sorted({letter for letter in said if letter != " "})
    pieces = [*dict.fromkeys(f"▁{word}" for word in said.split()), "▁", *letters]
    ids = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((piece, -1.0 - 0.01 * at) for at, piece in enumerate(pieces))]
    return hf.XLMRobertaTokenizer(vocab=[*ids, ("<mask>", 0.0)])


def processor(bins: int = BINS) -> Any:
    """Kosmos2Processor of so many places along a side, with the picture brought to a square."""
    pictures = CLIPImageProcessorPil(size={"height": 15, "width": 15}, do_center_crop=False)
    made = hf.Kosmos2Processor(pictures, tokenizer(), bins * bins)
    made.tokenizer.padding_side = "left"
    return made


def kosmos2(
    folder: Path, *, words: Mapping[str, int] | None = None, eye: Mapping[str, int] | None = None, bins: int = BINS, seed: int = 41
) -> Checkpoint:
    """The whole, in a folder; words and eye: other sizes of the decoder and of the eye;  bins  places along a side."""
    reader = processor(bins)
    text = {**WORDS, "vocab_size": len(reader.tokenizer), "max_position_embeddings": MOST, **(words or {})}
    config = hf.Kosmos2Config(text_config=text, vision_config={**EYE, **(eye or {})}, latent_query_num=QUERIES)
    model = hf.Kosmos2ForConditionalGeneration(config)
    randomise(model, seed=seed)
    model.tie_weights()
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(0.04)  # else each token would be followed by itself: the head is the same table
    model.eval()
    model.save_pretrained(folder)
    reader.save_pretrained(folder)
    return Checkpoint(folder, model, reader)


def words(folder: Path, count: int) -> None:
    """Save a tokenizer of one token per word, `w3` for id 3, that puts nothing around a text."""
    table = {f"w{index}": index for index in range(count)}
    made = Tokenizer(models.WordLevel(table, unk_token="w0"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    hf.PreTrainedTokenizerFast(tokenizer_object=made, unk_token="w0").save_pretrained(folder)


def as_kosmos1(theirs: Checkpoint, folder: Path) -> Path:
    """The same files as a Kosmos-1: the decoder knows positions by xPos."""
    folder.mkdir(parents=True)
    for path in theirs.folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config["model_type"], config["text_config"]["model_type"] = "kosmos-1", "kosmos_1_text_model"
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def asked(theirs: Checkpoint, pictures: list[Any], prompts: list[str], **more: Any) -> dict[str, Any]:
    """What their processor makes of pictures and prompts."""
    return dict(theirs.processor(images=pictures, text=prompts, padding=True, num_image_tokens=QUERIES, return_tensors="pt", **more))


def one_by_one(theirs: Checkpoint, pictures: list[Any], prompts: list[str], *, new: int, **settings: Any) -> tuple[list[str], torch.Tensor]:
    """The new texts, and the logits of the first new token, of transformers' own `generate`, record by record."""
    texts, logits = list[str](), list[torch.Tensor]()
    for picture, prompt in zip(pictures, prompts, strict=True):
        inputs = asked(theirs, [picture], [prompt])
        found = theirs.model.generate(
            **inputs, max_new_tokens=new, do_sample=False, output_logits=True, return_dict_in_generate=True, **settings
        )
        texts.append(theirs.processor.tokenizer.decode(found.sequences[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
        logits.append(found.logits[0][0])
    return texts, torch.stack(logits)
