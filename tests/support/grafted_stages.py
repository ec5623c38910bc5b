"""Recipes that train a connector through a frozen SmolLM2 of tiny weights, and what transformers gives for the same."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import modelgraft as mg
from support import checkpoints
from support.recipes import Recipe, Wanted

NAMES = ("a red car near the house", "a cat", "two dogs and a cat", "the sea")
SENTENCES, SLOTS, ROWS, WIDTH = 6, 8, 9, 27
_draw = torch.Generator().manual_seed(21)
READ = [{"read": torch.randn(384, generator=_draw), "caption": name} for name in NAMES]


def say_made(folder: Path) -> tuple[dict[str, Any], Any]:
    """A memory of random numbers beside the language model."""
    made, draw = checkpoints.smollm(folder / "smollm"), torch.Generator().manual_seed(22)
    config = json.loads((made.folder / "config.json").read_text())  # the examples are long, cut into the letters of its tokenizer
    (made.folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 512}))
    memory = {
        "keys": torch.randn(SENTENCES, 384, generator=draw),
        "places": torch.randint(0, ROWS, (SENTENCES, SLOTS), generator=draw),
        "rows": torch.randn(ROWS, WIDTH, generator=draw),
    }
    save_file(memory, folder / "memory.safetensors")
    return {"language": str(made.folder), "memory": str(folder / "memory.safetensors")}, (made, memory)


def say_loss(given: Any, records: Sequence[Mapping[str, Any]], seen: Mapping[str, Any]) -> Wanted:
    """Each record by itself: its soft tokens by the formula of the memory, between the tokens of the prompt."""
    made, memory = given
    near, tokenizer = seen["near.y"], made.processor
    assert near.shape == (len(records), 384)
    prompt = str(mg.load("grafted/say").nodes["llm"].config["prompt"].value)
    before, behind = (tokenizer(text, add_special_tokens=False).input_ids for text in prompt.split("{image}"))
    shares = (50 * torch.nn.functional.cosine_similarity(near[:, None], memory["keys"][None], dim=-1)).softmax(-1)
    rows = memory["rows"].clone().requires_grad_()
    table, total, count = made.model.get_input_embeddings(), torch.zeros(()), 0
    for share, record in zip(shares, records, strict=True):
        answer = [*tokenizer(f" {record['caption']}", add_special_tokens=False).input_ids, tokenizer.convert_tokens_to_ids("Ċ")]
        soft = torch.einsum("s,skd->kd", share, rows[memory["places"]])
        embedded = torch.cat([table(torch.tensor(before)), soft, table(torch.tensor([*behind, *answer[:-1]]))])
        logits = made.model(inputs_embeds=embedded[None]).logits[0, -len(answer) :]
        total = total + torch.nn.functional.cross_entropy(logits, torch.tensor(answer), reduction="sum")
        count += len(answer)
    (total / count).backward()
    holder = torch.nn.Module()
    holder.rows = torch.nn.Parameter(memory["rows"].clone())
    holder.rows.grad = rows.grad
    return Wanted({"say": float((total / count).detach())}, holder)


def gaze_made(folder: Path) -> tuple[dict[str, Any], Any]:
    """Gated layers before both layers of the language model."""
    return {"language": str(checkpoints.smollm(folder / "smollm").folder), "every": 1}, None


GRAFTED = [
    Recipe("grafted/say", "train", say_made, say_loss, READ, frozenset({"recall"}), rate=0.3),
    Recipe("grafted/gaze", "train", gaze_made, None, READ, frozenset({"media", "llm"}), rate=0.01),
]
