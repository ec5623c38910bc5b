"""A decoder that is given its answer: what it is trained by. Like writer.py, it imports no transformers.

The answer stands behind the prompt as it would be written there, with the token that ends answers behind it. All of it is read in one
pass, and the head sees the places alone behind which a token of the answer is to be written. The tokens that all prompts of a batch begin
with are read before, once and without gradients, where nothing of the model is trained: what it makes of them is the same in all, and in
the batches behind as well.
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

    shared  places that all prompts begin with;  is_once  they were read once for all batches, not in each record
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
        read = self.places - self.shared * self.records
        return f"{found}: they are read once and without gradients, so that it then reads {read:,} places of {self.places:,} in each"


class GoesOn(Protocol):
    """A session whose rows, all alike, can go on in ways of their own."""

    def fork(self, rows: Tensor) -> GoesOn:
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


class Beginning:
    """What a frozen model made of the tokens that prompts begin with: kept from batch to batch, while tokens and weights stay the same."""

    def __init__(self) -> None:
        self._tokens, self._room, self._of = torch.empty(0), 0, object()
        self._session: GoesOn | None = None

    def forked(self, decoder: Any, tokens: Tensor, *, rows: int, room: int, of: object) -> GoesOn:  # Any: a decoder of torch
        """A session of so many rows that have all read float[tokens width], with room for more; of: what the model is, to be compared."""
        if self._session is None or room > self._room or of != self._of or not _same(tokens, self._tokens):
            self._session = decoder.start([tokens], room=room)
            self._tokens, self._room, self._of = tokens, room, of
        return self._session.fork(torch.zeros(rows, dtype=torch.int64, device=tokens.device))


def _same(one: Tensor, other: Tensor) -> bool:
    return (one.dtype, one.device, one.shape) == (other.dtype, other.device, other.shape) and torch.equal(one, other)


def state_of(module: torch.nn.Module) -> object:
    """What tells whether a module computes what it did before: where its parameters lie, how often each was changed, the precision."""
    cast = [torch.get_autocast_dtype(kind) for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
    return (*cast, *((one.data_ptr(), one._version) for one in module.parameters()))


def states_at(
    decoder: Decoder,
    prompts: Sequence[Tensor],
    wanted: Sequence[Sequence[int]],
    conditions: Any,
    *,
    shared: int,
    layers: Sequence[int] = (-1,),
    beginning: Beginning | None = None,
    of: object = None,
) -> list[Tensor]:
    """Hidden states at some places of each prompt, float[layers places width]: in one pass, of which nothing is kept but the beginning.

    prompts    float[tokens width] each;  wanted  of each the places, in their order;  conditions  see Decoder
    shared     so many places that all begin with are the same, and are read once and without gradients; 0: none
    layers     0 are the embeddings, -1 is what the head reads
    beginning  what keeps them for the next batch;  of  see Beginning
    """
    inner: Any = inner_of(decoder)
    inner.layers = tuple(layers)
    places = Kept(wanted)
    if not shared:
        inner.start(prompts, conditions=conditions, room=1, states=True, places=places).close()
        return places.found
    rest = torch.nn.utils.rnn.pad_sequence([prompt[shared:] for prompt in prompts], batch_first=True)
    with torch.no_grad():
        kept = Beginning() if beginning is None else beginning
        session = kept.forked(inner, prompts[0][:shared].detach(), rows=len(prompts), room=rest.shape[1], of=of)
    session.go_on(rest, places)
    session.close()
    return places.found


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


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a record is taught by.

    ids     what is read: tokens, and what stands for embeddings;  answer  the tokens that are to be written
    places  the place in front of each of them, which says it
    """

    ids: list[int]
    answer: list[int]
    places: list[int]

    def whole(self) -> Lesson:
        """The same with the last token of the answer, which is read where its own states are wanted."""
        return replace(self, ids=[*self.ids, self.answer[-1]])

    def own(self, chosen: frozenset[int] | None) -> list[int]:
        """The places where tokens of the answer stand themselves: all of them, or those that are chosen."""
        return [place + 1 for place, token in zip(self.places, self.answer, strict=True) if chosen is None or token in chosen]


def lesson(before: Sequence[int], answer: Sequence[int]) -> Lesson:
    """To say an answer behind tokens: its first one is said by the last of those, the others by the one before each."""
    ids = [*before, *answer[:-1]]
    return Lesson(ids, [*answer], list(range(len(ids) - len(answer), len(ids))))


def of_dialogue(prompt: Prompt, ends: Sequence[int]) -> Lesson:
    """To say every answer of a whole conversation, and an end behind the last where its template writes none."""
    assert prompt.learnt is not None, "it was written to be learnt"
    places = list(prompt.learnt.places)
    last = places[-1] + 1 if places else len(prompt.ids)
    ids = [*prompt.ids[:last], *(() if prompt.learnt.is_ended else ends)]
    places += range(last, len(ids))
    return Lesson(ids[:-1], [ids[place] for place in places], [place - 1 for place in places])


@dataclass(frozen=True, slots=True)
class Batch:
    """What a model is taught at once.

    prompts  of each record what the decoder reads: float[tokens width], or int64[tokens] where it embeds its tokens itself
    conditions  see Decoder;  shared  so many places that all begin with are the same
    """

    lessons: Sequence[Lesson]
    prompts: Sequence[Tensor]
    conditions: Any  # Any: each decoder has its own
    shared: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """Of each record the logits in front of each token of its answer, float[tokens vocabulary], and states where tokens of it stand,
    float[layers places width]; none where nobody asks."""

    logits: Sequence[Tensor]
    states: Sequence[Tensor] = ()


def found_in(states: Sequence[Tensor], own: Sequence[Sequence[int]], lessons: Sequence[Lesson]) -> tuple[list[Tensor], list[Tensor]]:
    """Of each record what the head reads in front of its answer, and the other layers at the places of `own`.

    states  float[layers places width] at the places of `both`, the last layer what the head reads
    """
    read, stood = [], []
    for found, ours, one in zip(states, own, lessons, strict=True):
        at = {place: number for number, place in enumerate(both(one, ours))}
        read.append(found[-1, [at[place] for place in one.places]])
        stood.append(found[:-1, [at[place] for place in ours]])
    return read, stood


def both(lesson: Lesson, own: Sequence[int]) -> list[int]:
    """The places in front of an answer, and others, each once."""
    return sorted({*lesson.places, *own})


def levelled(found: Found, lessons: Sequence[Lesson]) -> dict[str, Tensor]:
    """The outputs: rows of unequal length are filled up."""
    device = found.logits[0].device
    ids = [torch.tensor(one.answer, dtype=torch.int64, device=device) for one in lessons]
    pad = torch.nn.utils.rnn.pad_sequence
    outputs = {
        "target_logits": pad([row.float() for row in found.logits], batch_first=True),
        "target_ids": pad(ids, batch_first=True, padding_value=NOTHING),
    }
    if found.states:
        outputs["target_states"] = pad([row.float().transpose(0, 1) for row in found.states], batch_first=True).transpose(1, 2)
    return outputs


def scaled(logits: Tensor, facts: Mapping[str, Any]) -> Tensor:
    """What some language models do to their logits last, by the keys of their config: see known.LAST."""
    logits = logits * (facts.get("logit_scale") or 1.0) * (facts.get("lm_head_multiplier") or 1.0) / (facts.get("logits_scaling") or 1.0)
    cap = facts.get("final_logit_softcapping")
    return logits if cap is None else cap * torch.tanh(logits / cap)
