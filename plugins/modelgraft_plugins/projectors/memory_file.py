"""Write a memory for projector/memory: `python -m modelgraft_plugins.projectors.memory_file READ.jsonl LANGUAGE --out FILE.safetensors`.

READ.jsonl  lines with `caption` and `read`, its vector, as `modelgraft map grafted/read captions.jsonl` writes them
--lift N    what is added to the cosine of sentences whose `state` is not `trained`; without it they are left out, so that a memory knows
            none that no picture was trained on
--by-place  a memory of tokens in place of one of sentences: for each place a part of its own, FILE.safetensors#place_0, ..., which knows
            every token that stands there in a sentence that is trained on, by the mean of their vectors; the more, the more is added
LANGUAGE    the language model whose embeddings the soft tokens are made of: a .gguf, also as pypi:...
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import InputError, archives
from modelgraft_plugins.projectors.read_lines import read_lines, save, told

if TYPE_CHECKING:
    from torch import Tensor

SLOTS = 8
OFTEN = 0.03  # what is added to the cosine of a token, times the logarithm of how many sentences have it at a place
FILLER = " ."  # what fills up shorter sentences: the examples of a prompt are filled up alike


def places_of(tokens: Sequence[Sequence[int]], *, slots: int, filler: int) -> tuple[list[list[int]], list[int]]:
    """Give which row each token of each sentence is, cut or filled up to `slots`, and the ids of the rows in ascending order."""
    filled = [[*ids[:slots], *[filler] * (slots - len(ids))] for ids in tokens]
    ids = sorted({one for row in filled for one in row})
    row_of = {one: row for row, one in enumerate(ids)}
    return [[row_of[one] for one in row] for row in filled], ids


def places_apart(keys: Tensor, places: Tensor, rows: Tensor) -> dict[str, Tensor]:
    """A memory of tokens for each place, as `place_N.` before its names.

    keys  float[sentences width], of length 1;  places  int64[sentences slots];  rows  float[rows out]: see projector/memory
    """
    import torch

    found: dict[str, Tensor] = {}
    for place, column in enumerate(places.T):
        tokens, which, counts = column.unique(return_inverse=True, return_counts=True)
        means = torch.zeros(len(tokens), keys.shape[1]).index_add_(0, which, keys)
        part = {
            "keys": torch.nn.functional.normalize(means, dim=-1),
            "places": torch.arange(len(tokens))[:, None],
            "rows": rows[tokens],
            "priors": OFTEN * counts.log(),
        }
        found |= {f"place_{place}.{name}": tensor.contiguous() for name, tensor in part.items()}
    return found


def write(read: Path, language: Path, out: Path, *, lift: float | None = None, by_place: bool = False) -> int:
    """Write the memory in float16 and give how many sentences it holds. Raises InputError where READ.jsonl has none.

    lift      added to the cosine of sentences that were not trained on; None: they are left out
    by_place  a memory of tokens for each place, see `places_apart`
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not language.is_file():
        raise InputError(f"{language} is no file; wanted: a language model as .gguf")
    lines = read_lines(read, ["read"])
    priors = {line["caption"]: 0.0 if line.get("state", "trained") == "trained" else lift for line in lines}
    kept = {line["caption"]: line["read"][0] for line in lines if priors[line["caption"]] is not None}
    if not kept:
        raise InputError(f"{read} has no line with a caption that is trained on; --lift takes the others too")
    where: dict[str, Any] = {"pretrained_model_name_or_path": str(language.parent), "gguf_file": language.name}
    tokenizer = AutoTokenizer.from_pretrained(**where)
    embeddings: Any = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32).get_input_embeddings()  # Any: typed as a module
    [filler] = tokenizer.encode(FILLER, add_special_tokens=False)
    tokens = [tokenizer.encode(f" {caption}", add_special_tokens=False) for caption in kept]
    places, ids = places_of(tokens, slots=SLOTS, filler=filler)
    rows = embeddings.weight[torch.tensor(ids)].detach().to(torch.float16)
    keys = torch.nn.functional.normalize(torch.tensor(list(kept.values())), dim=-1)
    if by_place:
        parts = places_apart(keys, torch.tensor(places), rows)
        save({name: one.to(torch.float16) if one.is_floating_point() else one for name, one in parts.items()}, out)
        return len(kept)
    keys = keys.to(torch.float16)
    more = {} if lift is None else {"priors": torch.tensor([priors[caption] for caption in kept], dtype=torch.float16)}
    save({"keys": keys.contiguous(), "places": torch.tensor(places), "rows": rows.contiguous(), **more}, out)
    return len(kept)


def main() -> None:
    """Write a memory, as the head of this file says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("read", type=Path)
    parser.add_argument("language")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--lift", type=float)
    kinds.add_argument("--by-place", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()

    def work() -> str:
        count = write(given.read, archives.located(given.language), given.out, lift=given.lift, by_place=given.by_place)
        return f"{count:,} sentences; wrote {given.out}"

    told(work)


if __name__ == "__main__":
    main()
