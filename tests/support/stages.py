"""What the recipes of tests/plugins/training are compared with: classes of transformers and layers of torch, put together by hand."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from torch.nn import functional

from support import beit3, checkpoints, kosmos, pali, simvlm
from support.recipes import Wanted

Records = Sequence[Mapping[str, Any]]
Seen = Mapping[str, Any]


def simvlm_loss(saved: Any, records: Records, seen: Seen) -> Wanted:
    """The rest of each text behind the place that was drawn, by layers of torch; encoder and decoder have a table of words each."""
    words, ends = simvlm.tokenizer(), [saved.facts["eos_token_id"]]
    state = {name: torch.nn.Parameter(tensor.clone(), "running" not in name) for name, tensor in saved.state.items()}
    state["encoder.embed_tokens.weight"] = torch.nn.Parameter(saved.state["decoder.embed_tokens.weight"].clone())
    cut = list(zip(seen["cut.beginning"], seen["cut.rest"], strict=True))
    assert [f"{beginning} {rest}".strip() for beginning, rest in cut] == [record["text"] for record in records]
    total, count = torch.zeros(()), 0
    for row, (beginning, rest) in enumerate(cut):
        prefix = torch.tensor([words(beginning).input_ids], dtype=torch.int64)
        labels = torch.tensor([*words(rest).input_ids, *ends])
        patches = simvlm.stem(simvlm.part(state, "stem."), seen["pixels.pixels"][row : row + 1])
        memory = simvlm.encode(state, saved.facts, patches, prefix, torch.ones_like(prefix, dtype=torch.bool))
        given = torch.tensor([[saved.facts["bos_token_id"], *labels[:-1].tolist()]])
        logits = simvlm.decode(state, saved.facts, memory, torch.ones(memory.shape[:2], dtype=torch.bool), given)[0]
        total, count = total + functional.cross_entropy(logits, labels, reduction="sum"), count + len(labels)
    (total / count).backward()
    return Wanted({"loss": float(total.detach()) / count}, torch.nn.ParameterList(state.values()))


def wav2vec2_loss(model: hf.Wav2Vec2ForPreTraining, _records: Records, seen: Seen) -> Wanted:
    """What transformers loses for the same spans and negatives; the graph divides by nothing either."""
    spans, others = seen["masked.spans"], seen["others.negatives"]
    flat = others + (torch.arange(len(spans)) * spans.shape[1])[:, None, None]
    found = model(seen["samples.samples"], mask_time_indices=spans, sampled_negative_indices=flat)
    found.loss.backward()
    return Wanted({"criterion": float(found.loss.detach())}, model)


def pali_loss(made: pali.Reference, records: Records, seen: Seen, fusion: str = "encoder_concat") -> Wanted:
    """The ViT and the mT5 of transformers; the eye learns nothing."""
    told = made.tokenizer([record["answer"] for record in records], return_tensors="pt", padding=True)
    labels = told.input_ids.masked_fill(told.attention_mask == 0, -100)
    lines = [f"Answer in EN: {record['question']} <extra_id_0>" for record in records]
    loss = made.taught(seen["pixels.pixels"], lines, labels, fusion).loss
    loss.backward()
    return Wanted({"loss": float(loss.detach())}, torch.nn.ModuleList([made.project, made.language]))


def pali_decoder_only_loss(made: pali.Reference, records: Records, seen: Seen) -> Wanted:
    """The other reading, in which encoder and decoder have a table of words each."""
    made.language.encoder.embed_tokens = copy.deepcopy(made.language.shared)
    return pali_loss(made, records, seen, "decoder_only")


def beit3_loss(_made: Any, _records: Records, seen: Seen) -> Wanted:
    """The mean over what is hidden, by torch, of what the heads give: the trunk itself is compared in tests/oracles/test_beit3.py."""

    def lost(logits: str, labels: str, hidden: str) -> float:
        return float(functional.cross_entropy(seen[logits][seen[hidden]], seen[labels][seen[hidden]]))

    return Wanted({
        "see_loss": lost("see_guess.y", "wanted.ids", "holes.mask"), "read_loss": lost("read_guess.y", "words.ids", "gaps.hidden"),
        "patch_loss": lost("both_patch.y", "wanted.ids", "holes.mask"), "word_loss": lost("both_word.y", "words.ids", "more.hidden"),
    })  # fmt: skip


def beit3_made(folder: Path) -> tuple[dict[str, Any], Any]:
    """Both heads, and a tokenizer of pictures."""
    words = beit3.tokenizer_of_pictures(folder / "vqkd.pth")
    return {"checkpoint": beit3.published(folder, ""), "visual_words": words, "codes": 11}, None


def blip2_t5_made(folder: Path) -> tuple[dict[str, Any], Any]:
    """BLIP-2 with a T5."""
    made = checkpoints.blip2(folder / "blip2", language="t5")
    return {"checkpoint": str(made.folder)}, made


def blip2_t5_loss(made: checkpoints.Checkpoint, records: Records, seen: Seen) -> Wanted:
    """The encoder reads the places of the picture and the beginning of the caption, the rest and an end token are its labels."""
    tokenizer = made.processor.tokenizer
    slots = [tokenizer.convert_tokens_to_ids("<image>")] * made.model.config.num_query_tokens
    cut = list(zip(seen["cut.beginning"], seen["cut.rest"], strict=True))
    assert [f"{beginning} {rest}".strip() for beginning, rest in cut] == [record["text"] for record in records]
    assert any(beginning for beginning, _ in cut)

    def level(rows: list[list[int]], filler: int) -> torch.Tensor:
        longest = max(map(len, rows))
        return torch.tensor([[*row, *[filler] * (longest - len(row))] for row in rows])

    read = [[*slots, *tokenizer(beginning).input_ids] for beginning, _ in cut]
    said = [tokenizer(rest).input_ids for _, rest in cut]  # both end with the end token
    pixels = made.processor.image_processor([record["image"] for record in records], return_tensors="pt")["pixel_values"]
    ids, mask = level(read, tokenizer.pad_token_id), level([[1] * len(row) for row in read], 0)
    loss = made.model(pixel_values=pixels, input_ids=ids, attention_mask=mask, labels=level(said, -100)).loss
    loss.backward()
    return Wanted({"say": float(loss.detach())}, made.model)


def kosmos2_made(folder: Path) -> tuple[dict[str, Any], Any]:
    """A Kosmos-2."""
    made = kosmos.kosmos2(folder / "kosmos2")
    return {"checkpoint": str(made.folder)}, made


def kosmos2_loss(made: checkpoints.Checkpoint, records: Records, _seen: Seen) -> Wanted:
    """As its processor lays pictures and texts out; what stands behind a picture has labels."""
    made.processor.tokenizer.padding_side = "right"
    told = {"num_image_tokens": kosmos.QUERIES, "padding": True, "add_eos_token": True, "return_tensors": "pt"}
    given = dict(made.processor(images=[row["image"] for row in records], text=[row["text"] for row in records], **told))
    labels = given["input_ids"].masked_fill(given["attention_mask"] == 0, -100)
    behind = (labels == made.processor.tokenizer.convert_tokens_to_ids("</image>")).long().cumsum(1) > 0
    labels = labels.masked_fill(~behind, -100).masked_fill(labels == made.processor.tokenizer.convert_tokens_to_ids("</image>"), -100)
    loss = made.model(**given, labels=labels).loss
    loss.backward()
    return Wanted({"say": float(loss.detach())}, made.model)
