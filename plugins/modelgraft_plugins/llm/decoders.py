"""Models of transformers as decoders of the token loop."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, EncoderDecoderCache

from modelgraft.plugin import Array, InputError, Places, as_tensor, picked
from modelgraft_plugins.llm.both_ways import prompt_mask
from modelgraft_plugins.llm.cache import bytes_of, cache_of, can_forget, fork, make_room, reorder, rewind
from modelgraft_plugins.llm.standing import Standing, alike, heard, laid

Model = Any  # a model of transformers, which is only partly annotated


class CausalDecoder:
    """A decoder-only model: see modelgraft.plugin.Decoder.

    Prompts of unequal length are padded on the left, so that all rows write at the same place. Without padding no mask is made at
    all: attention then runs its causal kernel.
    """

    def __init__(self, model: Model, *, reads: str = "onward", layers: Sequence[int] = ()) -> None:
        """Make the decoder of a model.

        reads   "both": the tokens of a prompt see each other in both directions; "media": those of one medium
        layers  whose hidden states `states` gives: 0 for the embeddings, -1 for what the head reads
        """
        self.model, self.reads, self.layers = model, reads, tuple(layers)
        self.takes_positions = "position_ids" in inspect.signature(model.forward).parameters
        text = model.config.get_text_config()
        has_windows = any(kind != "full_attention" for kind in getattr(text, "layer_types", None) or ()) or bool(
            getattr(text, "sliding_window", None)
        )
        # Windows and ALiBi are made from the rows of a mask, and attention in plain operations wants it made into numbers.
        makes_mask = has_windows or bool(getattr(text, "alibi", False)) or text._attn_implementation != "sdpa"
        self.takes_axes = self.takes_positions and not makes_mask  # the model takes a mask of 4 axes as it is
        self.forgets = can_forget(text)  # the last tokens can be taken back
        self.continues = self.forgets and reads == "onward"  # what a prompt begins with can be read before it is known how it goes on

    def start(
        self,
        prompts: Sequence[Tensor],
        *,
        conditions: Any = None,
        room: int,
        states: bool = False,
        places: Places | None = None,
    ) -> CausalSession:
        """See Decoder; its conditions are of each prompt a Standing, None: one token behind the other."""
        return CausalSession(self, prompts, conditions, room=room, states=states, places=places)

    def alike(self, one: Any, other: Any, tokens: int) -> bool:
        """See Remembered."""
        return self.continues and alike(one, other, tokens)


class CausalSession:
    """What was read: see modelgraft.plugin.Session."""

    logits: Tensor
    states: Tensor | None = None

    def __init__(
        self,
        decoder: CausalDecoder,
        prompts: Sequence[Tensor],
        standings: Sequence[Standing] | None = None,
        *,
        room: int,
        states: bool,
        places: Places | None = None,
    ) -> None:
        self.decoder, self.model, self.gives_states = decoder, decoder.model, states
        lengths = [len(prompt) for prompt in prompts]
        longest, capacity = max(lengths), max(lengths) + max(room, 1)
        self.length = 0
        self.cache: Cache | None = cache_of(self.model.config.get_text_config(), capacity)
        self.mask: Tensor | None = None  # bool[batch room]: what may be read; None when there is no padding
        self.positions = torch.zeros(1, 0, dtype=torch.int64)  # int64[1 room], int64[batch room], or int64[batch room 3] of three axes
        embedded = pad(prompts, longest, left=True)
        self._lay_out(lengths, longest, capacity, embedded.device)
        if standings is not None and decoder.reads == "onward":
            self.positions = laid(standings, capacity, offsets=[longest - length for length in lengths]).to(embedded.device)
        mask = None if self.mask is None else self.mask[:, :longest]
        if decoder.reads == "both" or (decoder.reads == "media" and standings is not None):
            blocks = None if decoder.reads == "both" else [standing.blocks for standing in standings or ()]
            mask = prompt_mask(self.model, embedded, mask, self.cache, self.positions[:, :longest], blocks=blocks)
        self._read(embedded, mask, places, [longest - length for length in lengths], standings)

    @property
    def bytes(self) -> int:
        """See Continuable."""
        return 0 if self.cache is None else bytes_of(self.cache)

    @property
    def device(self) -> torch.device:
        """See Continuable."""
        return self.positions.device

    def step(self, tokens: Tensor) -> Tensor:
        """See Session."""
        return self._run(self._step_mask(), 1, input_ids=tokens[:, None])

    @property
    def looks(self) -> bool:
        """See LooksAhead."""
        return self.decoder.forgets

    def look(self, tokens: Tensor) -> Tensor:
        """See LooksAhead."""
        count = tokens.shape[1]
        mask = None if self.mask is None else self.mask[:, : self.length + count]
        logits: Tensor = self._called(mask, count, input_ids=tokens).logits
        return logits

    def extend(self, prompt: Tensor, *, conditions: Any, room: int, states: bool, places: Places | None = None) -> None:
        """See Continuable; conditions: as of CausalDecoder.start."""
        assert self.cache is not None
        capacity = self.length + len(prompt) + max(room, 1)
        make_room(self.cache, capacity)
        capacity = max(capacity, self.positions.shape[1])
        plain = torch.arange(capacity, device=prompt.device)[None]
        self.positions = plain if conditions is None else laid(conditions, capacity, offsets=[0]).to(prompt.device)
        self.gives_states, self.states = states, None
        self._read(prompt[None], None, places, [-self.length], conditions)

    def go_on(self, rows: Tensor, places: Places) -> None:
        """See teaching.GoesOn."""
        self._read(rows, None, places, [-self.length] * len(rows), None)

    def reorder(self, rows: Tensor) -> None:
        """See Session."""
        if self.cache is not None:
            reorder(self.cache, rows)
        if self.mask is not None:
            self.mask, self.positions = self.mask[rows], self.positions[rows]

    def fork(self, rows: Tensor) -> CausalSession:
        """See Session."""
        other = copy.copy(self)
        if self.cache is not None:
            other.cache = fork(self.cache, rows)
        if self.mask is not None:
            other.mask, other.positions = self.mask[rows], self.positions[rows]
        return other

    def rewind(self, tokens: int) -> None:
        """See Session."""
        if tokens > self.length:
            raise InputError(f"{tokens} tokens cannot be taken back of {self.length} that were read")
        if tokens and not self.decoder.forgets:
            kind = self.model.config.get_text_config().model_type
            raise InputError(f"a {kind} cannot take tokens back: its windows or states have let go of what was before them")
        self.length -= tokens
        if self.cache is not None and tokens:
            rewind(self.cache, self.length)

    def close(self) -> None:
        """See Session."""
        self.cache = None

    def discard(self) -> None:
        """See Continuable."""
        self.close()

    def _read(
        self,
        embedded: Tensor,
        mask: Tensor | None,
        places: Places | None,
        offsets: Sequence[int],
        standings: Sequence[Standing] | None,
    ) -> None:
        """Read float[batch tokens width]; the head sees the last position alone. offsets: see Places.index."""
        given = {"inputs_embeds": embedded, "logits_to_keep": 1, **_added(standings, embedded, offsets)}
        if places is None:
            self._run(mask, embedded.shape[1], **given)
            return
        index = places.index([embedded.shape[1] - 1] * len(embedded), embedded.device, offsets=offsets)
        hidden = self._hidden(mask, embedded.shape[1], output_hidden_states=True, **given)
        self.states = places.take(torch.stack([picked(hidden[layer], index) for layer in self.decoder.layers], 1))

    def _run(self, mask: Tensor | None, count: int, **given: Any) -> Tensor:
        if self.gives_states:
            given["output_hidden_states"] = True
        hidden = self._hidden(mask, count, **given)
        if self.gives_states:
            self.states = torch.stack([hidden[layer][:, -1] for layer in self.decoder.layers], 1)
        return self.logits

    def _hidden(self, mask: Tensor | None, count: int, **given: Any) -> Any:
        """Read on, and give the hidden states as transformers does."""
        return self._called(mask, count, **given).hidden_states

    def _called(self, mask: Tensor | None, count: int, **given: Any) -> Any:
        start, self.length = self.length, self.length + count
        with _whole_rows(self.model) if count > 1 else nullcontext():
            output = self.model(
                attention_mask=mask, past_key_values=self.cache, use_cache=True, **given, **self._positions(start, self.length)
            )
        self.logits = output.logits[:, -1]
        return output

    def _lay_out(self, lengths: list[int], longest: int, capacity: int, device: torch.device) -> None:
        """Find, for the whole run, which places each row may read and at which position its tokens stand."""
        places = torch.arange(capacity, device=device)[None]
        if min(lengths) == longest:
            self.mask, self.positions = None, places
            return
        padding = torch.tensor([longest - length for length in lengths], device=device)[:, None]
        self.mask = places >= padding
        self.positions = (places - padding).clamp_(min=0)

    def _positions(self, start: int, end: int) -> dict[str, Tensor]:
        if not self.decoder.takes_positions:
            return {}
        found = self.positions[:, start:end]
        return {"position_ids": found if found.ndim == 2 else found.permute(2, 0, 1)}

    def _step_mask(self) -> Tensor | None:
        if self.mask is None:
            return None
        seen = self.mask[:, : self.length + 1]
        return seen[:, None, None] if self.decoder.takes_axes else seen


@contextmanager
def _whole_rows(model: Model) -> Iterator[None]:
    """Hand the head of a model in bfloat16 rows that lie one behind the other: of a slice torch copies the whole head, and multiplies
    20 times as slowly (2.13, on a CPU)."""
    head = model.get_output_embeddings() if model.dtype is torch.bfloat16 else None
    if head is None:
        yield
        return
    taken = head.register_forward_pre_hook(lambda _, given: tuple(x.clone(memory_format=torch.contiguous_format) for x in given))
    try:
        yield
    finally:
        taken.remove()


def _added(standings: Sequence[Standing] | None, embedded: Tensor, offsets: Sequence[int]) -> dict[str, Any]:
    """What first layers add to some tokens of float[batch tokens width], as Qwen3-VL's class takes it."""
    found = heard(standings, embedded.shape[1], offsets=offsets)
    if found is None:
        return {}
    there, vectors = found
    return {"visual_pos_masks": there.to(embedded.device), "deepstack_visual_embeds": list(vectors.to(embedded).unbind(0))}


class CrossDecoder:
    """The decoder of an encoder-decoder model: it reads its own tokens, and a memory by cross-attention.

    Its prompts are the tokens that answers begin with, int64[tokens], equally many in each row; its conditions what the encoder reads,
    or the memory itself, float[tokens width] per row. Rows of unequal length are padded on the right. Nothing is read once for several
    answers: what an encoder makes of a beginning depends on the end.
    """

    def __init__(self, model: Model, *, encoder: Model | None, layers: Sequence[int] = ()) -> None:
        """encoder: what reads the conditions, None when they are the memory;  layers: as of CausalDecoder."""
        self.model, self.encoder, self.layers = model, encoder, tuple(layers)

    def start(
        self,
        prompts: Sequence[Array],
        *,
        conditions: Sequence[Array] | None = None,
        room: int,
        states: bool = False,
        places: Places | None = None,
    ) -> CrossSession:
        """See Decoder; its prompts are the beginnings of answers, in which nobody looks for places."""
        assert places is None
        assert conditions is not None
        begun, given = ([as_tensor(one) for one in each] for each in (prompts, conditions))
        return CrossSession(self, begun, given, room=room, states=states)

    def remember(self, given: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """What the decoder attends to, float[batch frames width], and where it is there, bool[batch frames]; None: everywhere."""
        lengths, mask = [len(row) for row in given], None
        memory = pad(given, max(lengths), left=False)
        if min(lengths) != max(lengths):
            places = torch.arange(max(lengths), device=memory.device)
            mask = places < torch.tensor(lengths, device=memory.device)[:, None]
        if self.encoder is not None:
            memory = self.encoder(inputs_embeds=memory, attention_mask=mask).last_hidden_state
        return memory, mask

    def read(self, answers: Sequence[Tensor], given: Sequence[Tensor], *, states: bool) -> Any:  # Any: an output of transformers
        """Whole answers in one pass, of which nothing is kept, int64[tokens] each, and what they are about: see `start`."""
        memory, mask = self.remember(given)
        ids = torch.nn.utils.rnn.pad_sequence(list(answers), batch_first=True).to(memory.device)  # no token sees what stands behind it
        told = {"attention_mask": mask, "use_cache": False, "output_hidden_states": states}
        return self.model(decoder_input_ids=ids, encoder_outputs=(memory,), **told)


class CrossSession:
    """What was read: see modelgraft.plugin.Session."""

    logits: Tensor
    states: Tensor | None = None

    def __init__(self, decoder: CrossDecoder, prompts: Sequence[Tensor], given: Sequence[Tensor], *, room: int, states: bool) -> None:
        self.decoder, self.model, self.gives_states = decoder, decoder.model, states
        self.memory, self.mask = decoder.remember(given)
        config = self.model.get_decoder().config  # its own: the decoder of a T5 may have other layers than its encoder
        own = cache_of(config, len(prompts[0]) + max(room, 1))
        self.cache: EncoderDecoderCache | None = EncoderDecoderCache(own, cache_of(config, self.memory.shape[1]))
        self.length = 0
        self._read(torch.stack(list(prompts)).to(self.memory.device))

    def step(self, tokens: Tensor) -> Tensor:
        """See Session."""
        return self._read(tokens[:, None])

    def reorder(self, rows: Tensor) -> None:
        """See Session."""
        if self.cache is not None:
            reorder(self.cache.self_attention_cache, rows)
            reorder(self.cache.cross_attention_cache, rows)
        self.memory = self.memory[rows]
        self.mask = None if self.mask is None else self.mask[rows]

    def fork(self, rows: Tensor) -> CrossSession:
        """See Session."""
        other = copy.copy(self)
        if self.cache is not None:
            caches = (self.cache.self_attention_cache, self.cache.cross_attention_cache)
            other.cache = EncoderDecoderCache(*(fork(cache, rows) for cache in caches))
            other.cache.is_updated = dict(self.cache.is_updated)
        other.memory, other.mask = self.memory[rows], None if self.mask is None else self.mask[rows]
        return other

    def rewind(self, tokens: int) -> None:
        """See Session."""
        if tokens > self.length:
            raise InputError(f"{tokens} tokens cannot be taken back of {self.length} that were read")
        self.length -= tokens
        if self.cache is not None and tokens:
            rewind(self.cache.self_attention_cache, self.length)

    def close(self) -> None:
        """See Session."""
        self.cache = None

    def _read(self, ids: Tensor) -> Tensor:
        self.length += ids.shape[1]
        output = self.model(
            decoder_input_ids=ids,
            encoder_outputs=(self.memory,),
            attention_mask=self.mask,
            past_key_values=self.cache,
            use_cache=True,
            **({"output_hidden_states": True} if self.gives_states else {}),
        )
        if self.gives_states:
            self.states = torch.stack([output.decoder_hidden_states[layer][:, -1] for layer in self.decoder.layers], 1)
        self.logits = output.logits[:, -1]
        return self.logits


def pad(rows: Sequence[Tensor], length: int, *, left: bool) -> Tensor:
    """Stack float[tokens width] rows to float[batch length width], zeros where a row is shorter."""
    if all(len(row) == length for row in rows):
        return torch.stack(list(rows))
    whole = rows[0].new_zeros((len(rows), length, rows[0].shape[1]))
    for index, row in enumerate(rows):
        whole[index, length - len(row) if left else 0 : length if left else len(row)] = row
    return whole
