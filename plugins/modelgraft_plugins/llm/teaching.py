"""A decoder that is given its answer: what it is trained by. Like writer.py, it imports no transformers.

The answer stands behind the prompt as it would be written there, with the token that ends answers behind it. All of it is read in one
pass, and the head sees the places alone behind which a token of the answer is to be written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from modelgraft.plugin import Places, Remembering

if TYPE_CHECKING:
    from modelgraft.plugin import Decoder
    from modelgraft_plugins.llm.prompts import Prompt

NOTHING = -100  # the token that is to be written where none is


class Kept(Places):
    """Places whose states stay where they are, with what gradients need."""

    def take(self, states: Tensor) -> Tensor:
        """See Places."""
        self.found = [states[row, :, : len(places)] for row, places in enumerate(self.wanted)]
        return states[:, :, -1]


def states_at(decoder: Decoder, prompts: Sequence[Tensor], wanted: Sequence[Sequence[int]], conditions: Any) -> list[Tensor]:
    """What the head reads at some places of each prompt, float[places width]: in one pass, of which nothing is kept.

    prompts  float[tokens width] each;  wanted  of each the places;  conditions  see Decoder
    """
    inner: Any = decoder.inner if isinstance(decoder, Remembering) else decoder  # Any: a decoder of torch, which says its layers
    inner.layers = (-1,)
    places = Kept(wanted)
    inner.start(prompts, conditions=conditions, room=1, states=True, places=places).close()
    return [states[0] for states in places.found]


def with_answers(prompts: Sequence[Prompt], ends: Sequence[int]) -> tuple[list[Prompt], list[list[int]]]:
    """The prompts with the first of their given texts behind them, and of each the tokens to be written: the text's and an end."""
    answers = [[*prompt.given[0], *ends] for prompt in prompts]
    read = [replace(prompt, ids=[*prompt.ids, *answer[:-1]]) for prompt, answer in zip(prompts, answers, strict=True)]
    return read, answers


def places_of(prompts: Sequence[Prompt], answers: Sequence[Sequence[int]]) -> list[list[int]]:
    """Where what is read says the tokens of each answer: the last place of the prompt, and those of the answer but the last."""
    return [list(range(len(prompt.ids) - len(answer), len(prompt.ids))) for prompt, answer in zip(prompts, answers, strict=True)]


def levelled(logits: Sequence[Tensor], answers: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """The outputs: rows of unequal length are filled up."""
    ids = [torch.tensor(answer, dtype=torch.int64, device=logits[0].device) for answer in answers]
    pad = torch.nn.utils.rnn.pad_sequence
    return {
        "target_logits": pad([row.float() for row in logits], batch_first=True),
        "target_ids": pad(ids, batch_first=True, padding_value=NOTHING),
    }


def scaled(logits: Tensor, facts: Mapping[str, Any]) -> Tensor:
    """What some language models do to their logits last, by the keys of their config: see known.LAST."""
    logits = logits * (facts.get("logit_scale") or 1.0) * (facts.get("lm_head_multiplier") or 1.0) / (facts.get("logits_scaling") or 1.0)
    cap = facts.get("final_logit_softcapping")
    return logits if cap is None else cap * torch.tanh(logits / cap)
