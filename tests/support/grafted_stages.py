"""Recipes that train a connector through a frozen SmolLM2 of tiny weights, and what transformers gives for the same."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

import modelgraft as mg
from modelgraft_plugins.projectors.memory_file import places_apart
from support import checkpoints
from support.recipes import Recipe, Wanted

NAMES = ("a red car near the house", "a cat", "two dogs and a cat", "the sea")
SENTENCES, SLOTS, ROWS, WIDTH = 6, 8, 9, 27
_draw = torch.Generator().manual_seed(21)
READ = [{"read": torch.randn(384, generator=_draw), "caption": name} for name in NAMES]
SEEN = [{"seen": torch.rand(1280, generator=_draw), "caption": name} for name in NAMES]
CONNECTOR = frozenset({"look", *(f"at_{place}" for place in range(SLOTS))})


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


def tell_made(folder: Path) -> tuple[dict[str, Any], Any]:
    """A head of random numbers, and tokens by place that are made of random sentences."""
    params, (made, memory) = say_made(folder)
    draw = torch.Generator().manual_seed(23)
    head = {
        "linear_1.weight": torch.randn(16, 1280, generator=draw) / 36, "linear_1.bias": torch.zeros(16),
        "linear_2.weight": torch.randn(384, 16, generator=draw) / 4, "linear_2.bias": torch.zeros(384),
    }  # fmt: skip
    tokens = places_apart(torch.nn.functional.normalize(memory["keys"], dim=-1), memory["places"], memory["rows"])
    save_file(head, folder / "head.safetensors")
    save_file(tokens, folder / "tokens.safetensors")
    given = {"language": params["language"], "head": str(folder / "head.safetensors"), "tokens": str(folder / "tokens.safetensors")}
    return {**given, "scale": 20}, (made, tokens)


def gaze_made(folder: Path) -> tuple[dict[str, Any], Any]:
    """The same, and gated layers before both layers of the language model."""
    params, made = tell_made(folder)
    return {**params, "every": 1}, made


def names_of(memory: Mapping[str, Tensor], read: Tensor, *, scale: float, rows: Tensor) -> Tensor:
    """What a memory recalls, by its formula: float[batch slots width]."""
    shares = (scale * torch.nn.functional.cosine_similarity(read[:, None], memory["keys"][None], dim=-1)).softmax(-1)
    return torch.einsum("bs,skd->bkd", shares, rows[memory["places"]])


def answered(made: Any, graph: str, records: Sequence[Mapping[str, Any]], soft: Sequence[Tensor], table: Tensor) -> Tensor:
    """How unlikely transformers finds the names behind the prompt of a graph, in which soft tokens stand; each record by itself."""
    tokenizer, total, count = made.processor, torch.zeros(()), 0
    given = {} if graph == "grafted/say" else {"tokens": "tokens.safetensors"}
    prompt = str(mg.load(graph, params=given).nodes["llm"].config["prompt"].value).replace("<seen>", "{image}")
    before, behind = (tokenizer(text, add_special_tokens=False).input_ids for text in prompt.split("{image}"))
    for vectors, record in zip(soft, records, strict=True):
        answer = [*tokenizer(f" {record['caption']}", add_special_tokens=False).input_ids, tokenizer.convert_tokens_to_ids("Ċ")]
        embedded = torch.cat([table[before], vectors, table[[*behind, *answer[:-1]]]])
        states = made.model.model(inputs_embeds=embedded[None]).last_hidden_state[0, -len(answer) :]
        total = total + torch.nn.functional.cross_entropy(states @ table.mT, torch.tensor(answer), reduction="sum")
        count += len(answer)
    return total / count


def say_loss(given: Any, records: Sequence[Mapping[str, Any]], seen: Mapping[str, Any]) -> Wanted:
    """Soft tokens by the formula of the memory, between the tokens of the prompt; the gradients of its rows too."""
    made, memory = given
    near = seen["near.y"]
    assert near.shape == (len(records), 384)
    holder = torch.nn.Module()
    holder.rows = torch.nn.Parameter(memory["rows"].clone())
    soft = names_of(memory, near, scale=50, rows=holder.rows)
    loss = answered(made, "grafted/say", records, list(soft), made.model.get_input_embeddings().weight.detach())
    loss.backward()
    return Wanted({"say": float(loss.detach())}, holder)


def tell_loss(given: Any, records: Sequence[Mapping[str, Any]], seen: Mapping[str, Any], *, graph: str = "grafted/tell") -> Wanted:
    """A token for each place, by the formula of its memory, between the tokens of the prompt."""
    made, tokens = given
    cosine = torch.nn.functional.cosine_similarity
    soft = []
    for place in range(SLOTS):
        keys, rows, priors = (tokens[f"place_{place}.{name}"] for name in ("keys", "rows", "priors"))
        soft.append((20 * (cosine(seen["look.y"][:, None], keys[None], dim=-1) + priors)).softmax(-1) @ rows)
    with torch.no_grad():
        loss = answered(made, graph, records, list(torch.stack(soft, 1)), made.model.get_input_embeddings().weight)
    return Wanted({"say": float(loss)})


def lora_loss(given: Any, records: Sequence[Mapping[str, Any]], seen: Mapping[str, Any]) -> Wanted:
    """The same behind the other prompt: updates begin at nothing."""
    return tell_loss(given, records, seen, graph="grafted/tell_lora")


def gaze_loss(given: Any, records: Sequence[Mapping[str, Any]], _seen: Mapping[str, Any]) -> Wanted:
    """What the language model says by itself, since gates begin closed: of its added token it knows the mean of the others."""
    made = given[0]
    with torch.no_grad():
        table = made.model.get_input_embeddings().weight
        mean = table.mean(0, keepdim=True)
        loss = answered(made, "grafted/gaze", records, [mean] * len(records), torch.cat([table, mean]))
    return Wanted({"say": float(loss)})


GRAFTED = [
    Recipe("grafted/say", "train", say_made, say_loss, READ, frozenset({"recall"}), rate=0.3),
    Recipe("grafted/tell", "train", tell_made, tell_loss, SEEN, CONNECTOR, rate=0.1),
    Recipe("grafted/tell_lora", "train", tell_made, lora_loss, SEEN, CONNECTOR | {"llm"}, rate=0.01),
    Recipe("grafted/gaze", "train", gaze_made, gaze_loss, SEEN, CONNECTOR | {"llm"}, rate=0.01),
]
