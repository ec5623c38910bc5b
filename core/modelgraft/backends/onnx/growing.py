"""Decoders on ONNX Runtime whose cache grows: for attention that GroupQueryAttention cannot express, and for encoder-decoders.

Each call takes the past as inputs and gives the longer present as outputs, which are handed on without a copy to the host.
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

from modelgraft.backends.onnx.decoding import TYPES, Layout


class _Growing:
    """A session with a past that becomes its present."""

    def __init__(self, session: Any, layout: Layout, *, device: str) -> None:
        self.session, self.layout, self.device = session, layout, device
        self.inputs = {entry.name for entry in session.get_inputs()}
        self.outputs = [entry.name for entry in session.get_outputs()]
        self.past: dict[str, Any] = {}

    def clear(self, batch: int) -> None:
        """Forget everything."""
        empty = torch.empty(batch, self.layout.kv_heads, 0, self.layout.head_width, dtype=self.layout.dtype)
        value = _value(empty, self.device)
        self.past = {name: value for name in self.inputs if name.startswith("past.")}

    def run(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any] | None = None) -> Tensor:
        """Read some tokens; gives the logits. `values` are inputs that are on the device already."""
        binding = self.session.io_binding()
        kept = {name: tensor.contiguous() for name, tensor in tensors.items() if name in self.inputs}
        for name, tensor in kept.items():
            binding.bind_ortvalue_input(name, _value(tensor, self.device))
        for name, value in {**self.past, **(values or {})}.items():
            binding.bind_ortvalue_input(name, value)
        for name in self.outputs:
            binding.bind_output(name, *_place(self.device))
        self.session.run_with_iobinding(binding)
        given = dict(zip(self.outputs, binding.get_outputs(), strict=True))
        self.past = {name.replace("present.", "past.", 1): value for name, value in given.items() if name.startswith("present.")}
        return torch.from_numpy(given["logits"].numpy())

    def reorder(self, rows: Tensor) -> None:
        """Pick rows of the past."""
        self.past = {name: _pick(value, rows, self.device) for name, value in self.past.items()}


class GrowingDecoder:
    """A `generation.Decoder`. Rows are padded on the left and masked."""

    def __init__(self, session: Any, layout: Layout, embed: Callable[[Tensor], Tensor], *, device: str) -> None:
        self.body, self.embed = _Growing(session, layout, device=device), embed
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
        embeds = self.embed(tokens)[:, None].to(self.body.layout.dtype)
        positions = self.mask.sum(-1, keepdim=True) - 1
        return self.body.run({"inputs_embeds": embeds, "attention_mask": self.mask, "position_ids": positions})

    def reorder(self, rows: Tensor) -> None:
        """See Decoder.reorder."""
        self.mask = self.mask[rows]
        self.body.reorder(rows)


class CrossingDecoder:
    """A `generation.Decoder` that attends to a memory: what an encoder makes of the prompts, or the prompts themselves."""

    def __init__(self, sessions: Mapping[str, Any], layout: Layout, start: Callable[[], Sequence[int]], *, device: str) -> None:
        """sessions: "decoder", "crossing" and, where prompts are encoded here, "encoder";  start: what answers begin with."""
        self.body = _Growing(sessions["decoder"], layout, device=device)
        self.encoder, self.crossing = sessions.get("encoder"), sessions["crossing"]
        self.crossed = [entry.name for entry in self.crossing.get_outputs()]
        self.start, self.device = start, device
        self.cross: dict[str, Any] = {}
        self.mask = torch.zeros(0)

    def prefill(self, prompts: Sequence[Tensor], *, room: int) -> Tensor:  # noqa: ARG002 the cache grows by itself
        """See Decoder.prefill."""
        given, self.mask = _pad(prompts, self.body.layout, left=False)
        memory = _value(given, self.device)
        if self.encoder is not None:
            names = {entry.name for entry in self.encoder.get_inputs()}
            feed = {"inputs_embeds": memory, "attention_mask": _value(self.mask, self.device)}
            memory = self.encoder.run_with_ort_values(["memory"], {name: value for name, value in feed.items() if name in names})[0]
        self.cross = dict(zip(self.crossed, self.crossing.run_with_ort_values(self.crossed, {"memory": memory}), strict=True))
        self.body.clear(len(prompts))
        return self._read(torch.tensor([list(self.start())]).expand(len(prompts), -1))

    def step(self, tokens: Tensor) -> Tensor:
        """See Decoder.step."""
        return self._read(tokens[:, None])

    def reorder(self, rows: Tensor) -> None:
        """See Decoder.reorder."""
        self.mask = self.mask[rows]
        self.cross = {name: _pick(value, rows, self.device) for name, value in self.cross.items()}
        self.body.reorder(rows)

    def _read(self, ids: Tensor) -> Tensor:
        return self.body.run({"decoder_input_ids": ids.cpu(), "attention_mask": self.mask}, self.cross)


def _pad(prompts: Sequence[Tensor], layout: Layout, *, left: bool) -> tuple[Tensor, Tensor]:
    """Stack prompts, float[tokens width] each: float[batch longest width], and int64[batch longest] that is 1 where one stands."""
    longest = max(map(len, prompts))
    whole = torch.zeros(len(prompts), longest, layout.width, dtype=layout.dtype)
    mask = torch.zeros(len(prompts), longest, dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        place = slice(longest - len(prompt), longest) if left else slice(0, len(prompt))
        whole[row, place], mask[row, place] = prompt, 1
    return whole, mask


def _place(device: str) -> tuple[str, int]:
    kind, _, index = device.partition(":")
    return kind, int(index or 0)


def _value(tensor: Tensor, device: str) -> Any:
    from modelgraft.backends.onnx.runtime import runtime

    assert tensor.dtype in TYPES, tensor.dtype
    return runtime().OrtValue.ortvalue_from_numpy(tensor.detach().cpu().numpy(), *_place(device))


def _pick(value: Any, rows: Tensor, device: str) -> Any:
    return _value(torch.from_numpy(value.numpy()).index_select(0, rows.cpu()), device)
