"""What taps give of answers and prompts: rows of unlike lengths as tensors. Like writer.py, it imports no transformers, and
torch where something is tapped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import Answers, Places
from modelgraft_plugins.llm.naming import Names
from modelgraft_plugins.llm.pieces import pieces_of
from modelgraft_plugins.llm.prompts import SLOT, Prompt

if TYPE_CHECKING:
    from torch import Tensor


def of_answers(answers: Answers, names: Names, taps: frozenset[str]) -> dict[str, Any]:
    """The taps of answers that are read, padded to the longest row of each."""
    if not taps:
        return {}
    import torch

    found: dict[str, Any] = {}
    if "ids" in taps:
        found["ids"] = level([torch.tensor(ids, dtype=torch.int64) for ids in answers.ids], -1)
    if "pieces" in taps:
        told, decode = names.tapped(), names.shown()
        found["pieces"] = [pieces_of(ids, decode, told, text=text) for ids, text in zip(answers.ids, answers.texts, strict=True)]
    if "logprobs" in taps:
        found["logprobs"] = level([torch.tensor(row, dtype=torch.float32) for row in answers.taps.logprobs], 0.0)
    if "states" in taps:
        chosen = names.chosen()
        empty = torch.zeros(0, len(names.config.states.layers), int(names.facts["state_width"]))
        rows = [
            [state.cpu() for token, state in zip(ids, states, strict=True) if chosen is None or token in chosen]
            for ids, states in zip(answers.ids, answers.taps.states, strict=True)
        ]
        found["states"] = level([torch.stack(row) if row else empty for row in rows], 0.0).transpose(1, 2)
    return found


def places_of(prompt: Prompt, names: Names) -> list[int]:
    """The places of a prompt whose states are wanted."""
    chosen = names.chosen()
    return [place for place in prompt.tokens if chosen is None or prompt.ids[place] in chosen]


def of_prompts(asked: Sequence[Prompt], places: Places | None, names: Names, wanted: frozenset[str]) -> dict[str, Any]:
    """The taps of prompts that are read. places: where their states were noted, None where nobody wants them."""
    found: dict[str, Any] = {}
    if "prompt_ids" in wanted:
        import torch

        told = [dict.fromkeys(prompt.tokens) for prompt in asked]
        rows = [
            [token if place in there else SLOT for place, token in enumerate(prompt.ids)] for prompt, there in zip(asked, told, strict=True)
        ]
        found["prompt_ids"] = level([torch.tensor(row, dtype=torch.int64) for row in rows], SLOT)
    if places is not None:
        found["prompt_states"] = level([states.transpose(0, 1) for states in places.found], 0.0).transpose(1, 2)
    if "prompt_pieces" in wanted:
        found["prompt_pieces"] = [_pieces_of(prompt, names) for prompt in asked]
    return found


def _pieces_of(prompt: Prompt, names: Names) -> list[str]:
    """What each place of a prompt says: an embedding nothing."""
    there = prompt.tokens
    told = dict(zip(there, pieces_of([prompt.ids[place] for place in there], names.tokenizer.decode, names.tapped()), strict=True))
    return [told.get(place, "") for place in range(len(prompt.ids))]


def level(rows: Sequence[Tensor], filler: float) -> Tensor:
    """Stack rows of unequal lengths along their first axis."""
    import torch

    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=filler)
