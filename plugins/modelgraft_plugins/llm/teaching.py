"""A decoder that is given its answer: what it is trained by. Like writer.py, it imports no transformers.

The answer stands behind the prompt as it would be written there, with the token that ends answers behind it. All of it is read in one
pass, and the head sees the places alone behind which a token of the answer is to be written. The tokens that all prompts of a batch begin
with are read before, once and without gradients, where nothing of the model is trained: what it makes of them is the same in all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

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


@dataclass(frozen=True, slots=True)
class Reading:
    """What a batch that was read for its answers was made of.

    shared  places that all prompts begin with;  is_once  they were read once, not in each record
    places  of all prompts and answers together;  records  how many
    """

    shared: int
    is_once: bool
    places: int
    records: int

    def told(self) -> str:
        """In words; "" where prompts have no beginning in common, or there is one prompt alone."""
        if not self.shared or self.records == 1:
            return ""
        found = f"all prompts of a batch begin with the same {self.shared:,} tokens"
        if not self.is_once:
            return f"{found}; they are read in each record, because something of it is trained, or its words look at media beside them"
        read = self.places - self.shared * (self.records - 1)
        return f"{found}: they are read once and without gradients, so that it reads {read:,} places of {self.places:,}"


class GoesOn(Protocol):
    """A session whose rows, all alike, can go on in ways of their own."""

    def reorder(self, rows: Tensor) -> None:
        """See Session."""
        ...

    def go_on(self, rows: Tensor, places: Places) -> None:
        """Read float[batch tokens width] behind what was read, with what gradients need; shorter rows are filled up behind.

        places  as of whole prompts: what was read before counts
        """
        ...

    def close(self) -> None:
        """See Session."""
        ...


def states_at(
    decoder: Decoder, prompts: Sequence[Tensor], wanted: Sequence[Sequence[int]], conditions: Any, *, shared: int
) -> list[Tensor]:
    """What the head reads at some places of each prompt, float[places width]: in one pass, of which nothing is kept.

    prompts  float[tokens width] each;  wanted  of each the places;  conditions  see Decoder
    shared   so many places that all begin with are the same, and are read once and without gradients; 0: none
    """
    inner: Any = inner_of(decoder)
    inner.layers = (-1,)
    places = Kept(wanted)
    if not shared:
        inner.start(prompts, conditions=conditions, room=1, states=True, places=places).close()
        return [states[0] for states in places.found]
    rest = torch.nn.utils.rnn.pad_sequence([prompt[shared:] for prompt in prompts], batch_first=True)
    with torch.no_grad():
        session: GoesOn = inner.start([prompts[0][:shared].detach()], room=rest.shape[1])
        session.reorder(torch.zeros(len(prompts), dtype=torch.int64, device=rest.device))
    session.go_on(rest, places)
    session.close()
    return [states[0] for states in places.found]


def inner_of(decoder: Decoder) -> Any:  # Any: a decoder of torch, which says its layers
    """The decoder in torch itself."""
    return decoder.inner if isinstance(decoder, Remembering) else decoder


def shared_places(prompts: Sequence[Prompt]) -> int:
    """How many tokens all prompts begin with, media and the place left out that says the first token of an answer: in general the last."""
    first = prompts[0].ids
    most = min(min([_first_learnt(prompt) - 1, *prompt.places[:1]]) for prompt in prompts)
    return next((place for place in range(most) if any(prompt.ids[place] != first[place] for prompt in prompts)), most)


def _first_learnt(prompt: Prompt) -> int:
    """The place of the first token that is learnt: in a whole conversation, or the one behind a prompt."""
    return prompt.learnt.places[0] if prompt.learnt is not None and prompt.learnt.places else len(prompt.ids)


def with_answers(prompts: Sequence[Prompt], ends: Sequence[int]) -> tuple[list[Prompt], list[list[int]], list[list[int]]]:
    """What is read, of each record the tokens to be written, and the places that say them.

    Read are the prompts with the first of their given texts behind them; to be written are its tokens and an end, which the last place of
    the prompt says, and those of the text but the last.
    """
    answers = [[*prompt.given[0], *ends] for prompt in prompts]
    read = [replace(prompt, ids=[*prompt.ids, *answer[:-1]]) for prompt, answer in zip(prompts, answers, strict=True)]
    return read, answers, [list(range(len(one.ids) - len(answer), len(one.ids))) for one, answer in zip(read, answers, strict=True)]


def of_dialogues(prompts: Sequence[Prompt], ends: Sequence[int]) -> tuple[list[Prompt], list[list[int]], list[list[int]]]:
    """The same of whole conversations: to be written is every answer in them, and an end behind the last where its template writes none."""
    found = [_of_dialogue(prompt, ends) for prompt in prompts]
    return [read for read, _, _ in found], [answer for _, answer, _ in found], [places for _, _, places in found]


def _of_dialogue(prompt: Prompt, ends: Sequence[int]) -> tuple[Prompt, list[int], list[int]]:
    """One of them, which is read up to the last token that is learnt."""
    assert prompt.learnt is not None, "it was written to be learnt"
    places = list(prompt.learnt.places)
    last = places[-1] + 1 if places else len(prompt.ids)
    ids = [*prompt.ids[:last], *(() if prompt.learnt.is_ended else ends)]
    places += range(last, len(ids))
    return replace(prompt, ids=ids[:-1]), [ids[place] for place in places], [place - 1 for place in places]


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
