"""Models of transformers as decoders of the generation loop."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, EncoderDecoderCache

from modelgraft_plugins.llm.both_ways import prompt_mask
from modelgraft_plugins.llm.cache import cache_of, reorder

Model = Any  # a model of transformers, which is only partly annotated


class CausalDecoder:
    """A decoder-only model. Prompts of unequal length are padded on the left, so that all rows write at the same place.

    Without padding no mask is made at all: attention then runs its causal kernel.
    """

    def __init__(self, model: Model, *, both_ways: bool = False) -> None:
        """both_ways: the tokens of a prompt see each other in both directions."""
        self.model, self.both_ways = model, both_ways
        self.takes_positions = "position_ids" in inspect.signature(model.forward).parameters
        text = model.config.get_text_config()
        has_windows = any(kind != "full_attention" for kind in getattr(text, "layer_types", None) or ()) or bool(
            getattr(text, "sliding_window", None)
        )
        # Windows and ALiBi are made from the rows of a mask, and attention in plain operations wants it made into numbers.
        makes_mask = has_windows or bool(getattr(text, "alibi", False)) or text._attn_implementation != "sdpa"
        self.takes_axes = self.takes_positions and not makes_mask  # the model takes a mask of 4 axes as it is
        self.cache: Cache | None = None
        self.length = 0
        self.mask: Tensor | None = None  # bool[batch room]: what may be read; None when there is no padding
        self.positions: Tensor | None = None  # int64[1 room] or int64[batch room]

    def prefill(self, prompts: Sequence[Tensor], *, room: int) -> Tensor:
        """See Decoder.prefill."""
        lengths = [len(prompt) for prompt in prompts]
        longest, capacity = max(lengths), max(lengths) + max(room, 1)
        self.cache, self.length = cache_of(self.model.config.get_text_config(), capacity), longest
        embedded = pad(prompts, longest, left=True)
        self._lay_out(lengths, longest, capacity, embedded.device)
        mask = None if self.mask is None else self.mask[:, :longest]
        if self.both_ways:
            assert self.positions is not None
            mask = prompt_mask(self.model, embedded, mask, self.cache, self.positions[:, :longest])
        output = self.model(
            inputs_embeds=embedded,
            attention_mask=mask,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
            **self._positions(0, longest),
        )
        logits: Tensor = output.logits[:, -1]
        return logits

    def step(self, tokens: Tensor) -> Tensor:
        """See Decoder.step."""
        start, self.length = self.length, self.length + 1
        output = self.model(
            input_ids=tokens[:, None],
            attention_mask=self._step_mask(),
            past_key_values=self.cache,
            use_cache=True,
            **self._positions(start, self.length),
        )
        logits: Tensor = output.logits[:, -1]
        return logits

    def reorder(self, rows: Tensor) -> None:
        """See Decoder.reorder."""
        if self.cache is not None:
            reorder(self.cache, rows)
        if self.mask is not None and self.positions is not None:
            self.mask, self.positions = self.mask[rows], self.positions[rows]

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
        if not self.takes_positions or self.positions is None:
            return {}
        return {"position_ids": self.positions[:, start:end]}

    def _step_mask(self) -> Tensor | None:
        if self.mask is None:
            return None
        seen = self.mask[:, : self.length]
        return seen[:, None, None] if self.takes_axes else seen


class CrossDecoder:
    """The decoder of an encoder-decoder model: it reads its own tokens, and the memory by cross-attention.

    Prompts of unequal length are padded on the right: they are what the encoder reads, or its memory itself.
    """

    def __init__(self, model: Model, *, start: Sequence[int], encoder: Model | None) -> None:
        """start: the tokens that every answer begins with;  encoder: what reads the prompts, None when they are the memory."""
        self.model, self.encoder, self.start = model, encoder, tuple(start)
        self.cache: EncoderDecoderCache | None = None
        self.memory: Tensor | None = None
        self.mask: Tensor | None = None

    def prefill(self, prompts: Sequence[Tensor], *, room: int) -> Tensor:
        """See Decoder.prefill."""
        lengths = [len(prompt) for prompt in prompts]
        given = pad(prompts, max(lengths), left=False)
        self.mask = None
        if min(lengths) != max(lengths):
            places = torch.arange(max(lengths), device=given.device)
            self.mask = places < torch.tensor(lengths, device=given.device)[:, None]
        self.memory = given
        if self.encoder is not None:
            self.memory = self.encoder(inputs_embeds=given, attention_mask=self.mask).last_hidden_state
        config = self.model.get_decoder().config  # its own: the decoder of a T5 may have other layers than its encoder
        self.cache = EncoderDecoderCache(cache_of(config, len(self.start) + max(room, 1)), cache_of(config, max(lengths)))
        return self._read(torch.tensor([self.start], device=given.device).expand(len(prompts), -1))

    def step(self, tokens: Tensor) -> Tensor:
        """See Decoder.step."""
        return self._read(tokens[:, None])

    def reorder(self, rows: Tensor) -> None:
        """See Decoder.reorder."""
        if self.cache is not None:
            reorder(self.cache.self_attention_cache, rows)
            reorder(self.cache.cross_attention_cache, rows)
        self.memory = None if self.memory is None else self.memory[rows]
        self.mask = None if self.mask is None else self.mask[rows]

    def _read(self, ids: Tensor) -> Tensor:
        output = self.model(
            decoder_input_ids=ids,
            encoder_outputs=(self.memory,),
            attention_mask=self.mask,
            past_key_values=self.cache,
            use_cache=True,
        )
        logits: Tensor = output.logits[:, -1]
        return logits


def pad(rows: Sequence[Tensor], length: int, *, left: bool) -> Tensor:
    """Stack float[tokens width] rows to float[batch length width], zeros where a row is shorter."""
    if all(len(row) == length for row in rows):
        return torch.stack(list(rows))
    whole = rows[0].new_zeros((len(rows), length, rows[0].shape[1]))
    for index, row in enumerate(rows):
        whole[index, length - len(row) if left else 0 : length if left else len(row)] = row
    return whole
