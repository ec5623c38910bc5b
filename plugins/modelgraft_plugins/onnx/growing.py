"""Decoders on ONNX Runtime whose cache grows: for attention that GroupQueryAttention cannot express, and for encoder-decoders.

Each call takes the past as inputs and gives the longer present as outputs, whose memory is onnxruntime's and which is
handed on as it lies (DLPack). Sizes change with every token, so such steps are never captured.
Decoder alone:     inputs_embeds float[batch tokens width], attention_mask int64[batch past+tokens], position_ids int64[batch tokens],
                   past.key.i, past.value.i float[batch heads past d]  ->  logits float[batch vocab], present.*
Encoder-decoder:   encoder: inputs_embeds, attention_mask  ->  memory float[batch frames width]
                   crossing: memory  ->  cross.key.i, cross.value.i, once per prompt
                   decoder: decoder_input_ids int64[batch tokens], attention_mask int64[batch frames], cross.*, past.*
                   ->  logits, present.*
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from modelgraft_plugins.onnx.calling import Exported, bind, ports
from modelgraft_plugins.onnx.decoding import Layout
from modelgraft_plugins.onnx.streams import Order, order_of, unordered


class GrowingSession:
    """A session with a past that becomes its present."""

    def __init__(self, session: Any, layout: Layout, *, device: str, order: Order | None) -> None:
        self.session, self.layout, self.device = session, layout, torch.device(device)
        self.order = order or order_of(device)
        self.inputs = ports(session.get_inputs(), session.get_input_memory_infos(), self.device)
        self.presents = [entry.name for entry in session.get_outputs() if entry.name != "logits"]
        self.past: dict[str, Tensor] = {}

    def clear(self, batch: int) -> None:
        """Forget everything."""
        empty = torch.empty(batch, self.layout.kv_heads, 0, self.layout.head_width, dtype=self.layout.dtype, device=self.device)
        self.past = {name: empty for name, *_ in self.inputs if name.startswith("past.")}

    def run(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Read some tokens; gives the logits."""
        with (self.order or unordered)(*tensors.values()):
            logits = self._run({**tensors, **self.past})
        if self.order is not None:
            self.order.hand_over([logits])
        return logits

    def _run(self, given: Mapping[str, Tensor]) -> Tensor:
        binding = self.session.io_binding()
        kept = {name: given[name].to(place, kind).contiguous() for name, _, kind, place in self.inputs}
        for name, tensor in kept.items():
            bind(binding.bind_input, name, tensor)
        batch = len(next(iter(kept.values())))
        logits = torch.empty(batch, self.layout.vocab, dtype=self.layout.dtype, device=self.device)
        for name in self.presents:
            binding.bind_output(name, self.device.type, self.device.index or 0)
        bind(binding.bind_output, "logits", logits)  # the last, so that the others are given in their order
        self.session.run_with_iobinding(binding, self.order.options if self.order is not None else None)
        made = zip(self.presents, binding.get_outputs(), strict=False)
        self.past = {name.replace("present.", "past.", 1): torch.utils.dlpack.from_dlpack(value) for name, value in made}
        return logits

    def reorder(self, rows: Tensor) -> None:
        """Pick rows of the past."""
        with (self.order or unordered)(rows):
            self.past = pick(self.past, rows)


class GrowingDecoder:
    """A `generation.Decoder`. Rows are padded on the left and masked."""

    def __init__(self, session: Any, layout: Layout, embed: Callable[[Tensor], Tensor], *, device: str, order: Order | None = None) -> None:
        """embed, order: as for OnnxDecoder."""
        self.body, self.embed = GrowingSession(session, layout, device=device, order=order), embed
        self.mask = torch.zeros(0)

    def prefill(self, prompts: Sequence[Tensor], *, room: int) -> Tensor:  # noqa: ARG002 the cache grows by itself
        """See Decoder.prefill."""
        embeds, self.mask = _pad(prompts, self.body.layout, left=True)
        self.body.clear(len(prompts))
        positions = (self.mask.cumsum(-1) - 1).clamp(min=0)
        return self.body.run({"inputs_embeds": embeds, "attention_mask": self.mask, "position_ids": positions})

    def step(self, tokens: Tensor) -> Tensor:
        """See Decoder.step."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)
        embeds = self.embed(tokens.cpu())[:, None]
        positions = self.mask.sum(-1, keepdim=True) - 1
        return self.body.run({"inputs_embeds": embeds, "attention_mask": self.mask, "position_ids": positions})

    def reorder(self, rows: Tensor) -> None:
        """See Decoder.reorder."""
        self.mask = self.mask[rows.cpu()]
        self.body.reorder(rows)


class CrossingDecoder:
    """A `generation.Decoder` that attends to a memory: what an encoder makes of the prompts, or the prompts themselves."""

    def __init__(
        self,
        sessions: Mapping[str, Any],
        layout: Layout,
        start: Sequence[int] = (0,),
        *,
        device: str,
        order: Order | None = None,
    ) -> None:
        """sessions: "decoder", "crossing" and, where prompts are encoded here, "encoder";  start: what answers begin with."""
        self.body = GrowingSession(sessions["decoder"], layout, device=device, order=order)
        self.crossing = Exported(sessions["crossing"], device=device, order=order)
        self.encoder = Exported(sessions["encoder"], device=device, order=order) if "encoder" in sessions else None
        self.crossed = [entry.name for entry in sessions["crossing"].get_outputs()]
        self.start = start
        self.cross: dict[str, Tensor] = {}
        self.mask = torch.zeros(0)

    def prefill(self, prompts: Sequence[Tensor], *, room: int) -> Tensor:  # noqa: ARG002 the cache grows by itself
        """See Decoder.prefill."""
        memory, self.mask = _pad(prompts, self.body.layout, left=False)
        if self.encoder is not None:
            feed = {"inputs_embeds": memory, "attention_mask": self.mask}
            (memory,) = self.encoder(*(feed[name] for name, _ in self.encoder.inputs))
        self.cross = dict(zip(self.crossed, self.crossing(memory), strict=True))
        self.body.clear(len(prompts))
        return self._read(torch.tensor([list(self.start)]).expand(len(prompts), -1))

    def step(self, tokens: Tensor) -> Tensor:
        """See Decoder.step."""
        return self._read(tokens[:, None])

    def reorder(self, rows: Tensor) -> None:
        """See Decoder.reorder."""
        self.mask = self.mask[rows.cpu()]
        self.cross = pick(self.cross, rows)
        self.body.reorder(rows)

    def _read(self, ids: Tensor) -> Tensor:
        return self.body.run({"decoder_input_ids": ids, "attention_mask": self.mask, **self.cross})


def pick(held: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """Rows of tensors, in memory of torch's."""
    return {name: tensor.index_select(0, rows.to(tensor.device)) for name, tensor in held.items()}


def _pad(prompts: Sequence[Tensor], layout: Layout, *, left: bool) -> tuple[Tensor, Tensor]:
    """Stack prompts, float[tokens width] each: float[batch longest width], and int64[batch longest] that is 1 where one stands."""
    longest = max(map(len, prompts))
    whole = torch.zeros(len(prompts), longest, layout.width, dtype=layout.dtype)
    mask = torch.zeros(len(prompts), longest, dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        place = slice(longest - len(prompt), longest) if left else slice(0, len(prompt))
        whole[row, place], mask[row, place] = prompt, 1
    return whole, mask
